"""Feed of job events: one poller for all event streams of a web process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from service.errors import LimitReached, StoreUnavailable
from service.jobs.queue import FINAL, Event, Jobs

_POLL_S = 0.25
_BATCH = 1000  # events in one query
_WAITING = 1000  # events kept for one stream; a slower client's stream reads them from the database instead
_KEEP_ALIVE_S = 15.0


async def _pause() -> None:
    await asyncio.sleep(_POLL_S)


class _Stream:
    """One open stream: the events that it has not sent yet, or a note that it must read them from the database."""

    def __init__(self, job: str, *, behind: bool) -> None:
        self.job = job
        self._events: list[Event] = []
        self._behind = behind
        self._news = asyncio.Event()
        if behind:
            self._news.set()

    def put(self, event: Event) -> None:
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

    async def next(self) -> Sequence[Event] | None:
        """Wait for events; None if they must be read from the database. Raises TimeoutError."""
        async with asyncio.timeout(_KEEP_ALIVE_S):
            await self._news.wait()
        self._news.clear()
        taken, self._events = self._events, []
        behind, self._behind = self._behind, False
        return None if behind else taken


class Feed:
    """Reads the new events of all jobs with one query, as often as `pause` returns, and hands them to the streams.

    It polls only while there are streams. At most `most` may be open. Enter it while the service runs.
    """

    def __init__(
        self,
        jobs: Jobs,
        most: int,
        pause: Callable[[], Awaitable[None]] = _pause,
    ) -> None:
        self._jobs = jobs
        self._most = most
        self._pause = pause
        self._streams: set[_Stream] = set()
        self._last: int | None = None  # id of the last event that was read; None while the poller does not run
        self._polling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        """Nothing to start: the first stream starts the poller."""

    async def __aexit__(self, *_: object) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    @contextmanager
    def opened(self, job: str, after: int) -> Iterator[AsyncIterator[Event | None]]:
        """Open a stream of the events of `job` after event `after`, to the job's end; None is a sign of life.

        Raises LimitReached.
        """
        if len(self._streams) >= self._most:
            raise LimitReached(
                f"{self._most} event streams are open already: close one, or poll GET /jobs/{job}", retry_after_s=5
            )
        stream = _Stream(job, behind=self._last is not None)
        self._streams.add(stream)
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        try:
            yield self._events(stream, after)
        finally:
            self._streams.discard(stream)

    async def _events(self, stream: _Stream, after: int) -> AsyncIterator[Event | None]:
        over = False
        while not over:
            try:
                events = await stream.next()
                if events is None:
                    # read before the events: no event follows the final state
                    over = (await asyncio.to_thread(self._jobs.get, stream.job)).state in FINAL
                    events = await asyncio.to_thread(self._jobs.events, stream.job, after)
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
                    over = over or _is_last(event)

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
            self._last = await asyncio.to_thread(self._jobs.last_event)
            for stream in self._streams:
                stream.fall_behind()
            return
        while events := await asyncio.to_thread(self._jobs.new_events, self._last, _BATCH):
            self._last = events[-1].id
            by_job: dict[str, list[_Stream]] = {}
            for stream in self._streams:
                by_job.setdefault(stream.job, []).append(stream)
            for event in events:
                for stream in by_job.get(event.job, ()):
                    stream.put(event)
            if len(events) < _BATCH:
                return


def _is_last(event: Event) -> bool:
    return event.kind == "state" and event.data.get("state") in FINAL
