"""Feed of events: one poller for all event streams of one kind in a web process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from service.errors import LimitReached, StoreUnavailable

_POLL_S = 0.25
_BATCH = 1000  # events in one query
_WAITING = 1000  # events kept for one stream; a slower client's stream reads them from the database instead
_KEEP_ALIVE_S = 15.0


async def _pause() -> None:
    await asyncio.sleep(_POLL_S)


class FeedEvent(Protocol):
    """An event. `id` rises over all subjects; `is_last`: none of its subject follows."""

    @property
    def id(self) -> int: ...
    @property
    def subject(self) -> str: ...
    @property
    def is_last(self) -> bool: ...


E = TypeVar("E", bound=FeedEvent)
E_co = TypeVar("E_co", bound=FeedEvent, covariant=True)


class Source(Protocol[E_co]):
    """The table of the events, of jobs or of trials. Its methods raise StoreUnavailable."""

    def has_ended(self, subject: str, /) -> bool:
        """Return whether no event of the subject follows. Raises NotFound."""
        ...

    def events(self, subject: str, /, after: int = 0) -> Sequence[E_co]:
        """Return the events of a subject after event `after`, oldest first: all, or the first 1,000 or more of them."""
        ...

    def last_event(self) -> int:
        """Return the id of the last event of all subjects; 0 if there is none."""
        ...

    def new_events(self, after: int, limit: int) -> Sequence[E_co]:
        """Return events of all subjects after event `after`, oldest first."""
        ...


class _Stream(Generic[E]):
    """One open stream: the events that it has not sent yet, or a note that it must read them from the database."""

    def __init__(self, subject: str, *, behind: bool) -> None:
        self.subject = subject
        self._events: list[E] = []
        self._behind = behind
        self._news = asyncio.Event()
        if behind:
            self._news.set()

    def put(self, event: E) -> None:
        """Keep an event."""
        if len(self._events) >= _WAITING:
            self.fall_behind()
        elif not self._behind:
            self._events.append(event)
            self._news.set()

    def fall_behind(self) -> None:
        """Drop the events: they are read from the database."""
        self._events.clear()
        self._behind = True
        self._news.set()

    def wake(self) -> None:
        """Have `next` return at once."""
        self._news.set()

    async def next(self) -> Sequence[E] | None:
        """Wait for events; None if they must be read from the database. Raises TimeoutError."""
        async with asyncio.timeout(_KEEP_ALIVE_S):
            await self._news.wait()
        self._news.clear()
        taken, self._events = self._events, []
        behind, self._behind = self._behind, False
        return None if behind else taken


class Feed(Generic[E]):
    """Reads the new events of all subjects with one query, as often as `pause` returns, and hands them to the streams.

    It polls only while there are streams. At most `most` may be open. Enter it while the service runs.
    """

    def __init__(
        self,
        source: Source[E],
        most: int,
        pause: Callable[[], Awaitable[None]] = _pause,
        *,
        address: str = "/jobs",
    ) -> None:
        """`address` is where a subject can be polled instead."""
        self._source = source
        self._most = most
        self._pause = pause
        self._address = address
        self._streams: set[_Stream[E]] = set()
        self._last: int | None = None  # id of the last event that was read; None while the poller does not run
        self._polling: asyncio.Task[None] | None = None
        self._leaving = False

    async def __aenter__(self) -> None:
        """Nothing to start: the first stream starts the poller."""

    async def __aexit__(self, *_: object) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    def leave(self) -> None:
        """End all streams, also those to come: the service stops, and clients connect again elsewhere."""
        self._leaving = True
        for stream in self._streams:
            stream.wake()

    @contextmanager
    def opened(self, subject: str, after: int) -> Iterator[AsyncIterator[E | None]]:
        """Open a stream of the events of a subject after event `after`, to its end; None is a sign of life.

        Raises LimitReached.
        """
        if len(self._streams) >= self._most:
            raise LimitReached(
                f"{self._most} event streams are open already: close one, or poll GET {self._address}/{subject}".rstrip(
                    "/"
                ),
                retry_after_s=5,
            )
        stream = _Stream[E](subject, behind=self._last is not None)
        self._streams.add(stream)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        try:
            yield self._events(stream, after)
        finally:
            self._streams.discard(stream)

    async def _events(self, stream: _Stream[E], after: int) -> AsyncIterator[E | None]:
        over = False
        while not over and not self._leaving:
            whole = True
            try:
                events = await stream.next()
                if events is None:
                    # read before the events: no event follows the last one
                    over = await asyncio.to_thread(self._source.has_ended, stream.subject)
                    events = await asyncio.to_thread(self._source.events, stream.subject, after)
                    whole = len(events) < _BATCH
            except TimeoutError:
                yield None
                continue
            except StoreUnavailable:  # the stream stays open; the poller wakes it when the database is back
                over = False
                await self._pause()
                stream.fall_behind()
                continue
            for event in events:
                if event.id > after:
                    after = event.id
                    yield event
                    over = over or event.is_last
            if not whole:
                stream.fall_behind()

    async def _poll(self) -> None:
        try:
            while self._streams:
                with contextlib.suppress(StoreUnavailable):  # the store logs it
                    await self._look()
                await self._pause()
        finally:
            self._last = None

    async def _look(self) -> None:
        """Read the new events. The first look only notes their position; each stream reads the earlier ones itself."""
        if self._last is None:
            self._last = await asyncio.to_thread(self._source.last_event)
            for stream in self._streams:
                stream.fall_behind()
            return
        while events := await asyncio.to_thread(self._source.new_events, self._last, _BATCH):
            self._last = events[-1].id
            by_subject: dict[str, list[_Stream[E]]] = {}
            for stream in self._streams:
                by_subject.setdefault(stream.subject, []).append(stream)
            for event in events:
                for stream in by_subject.get(event.subject, ()):
                    stream.put(event)
            if len(events) < _BATCH:
                return
