"""Responses of server-sent events."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import orjson
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.jobs.feed import Feed, FeedEvent


class Named(FeedEvent, Protocol):
    """An event with its kind."""

    @property
    def kind(self) -> str: ...


class Told(Named, Protocol):
    """An event of a job or trial with its content."""

    @property
    def attempt(self) -> int: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


E = TypeVar("E", bound=Named)
EVENTS = "text/event-stream"
STILL_HERE = b": still here\n\n"  # a comment


def _all(_: object) -> bool:
    return True


def line_of(event: E, told: Callable[[E], Mapping[str, Any]]) -> bytes:
    """Encode an event as text/event-stream."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.id, event.kind.encode(), orjson.dumps(told(event)))


def position_of(number: int) -> bytes:
    """Return an id without an event: a client that connects again sends it as Last-Event-ID."""
    return b"id: %d\n\n" % number


class EventStream(StreamingResponse, Generic[E]):
    """Server-sent events of a subject. Raises LimitReached before anything is sent."""

    def __init__(
        self,
        feed: Feed[E],
        subject: str,
        after: int,
        told: Callable[[E], Mapping[str, Any]],
        wanted: Callable[[E], bool] = _all,
        *,
        begins: bool = False,
    ) -> None:
        """`told` returns the data of an event; those that are not `wanted` are left out. `begins`: send `after` first,
        so that a client that is cut off before the first event misses none.
        """
        super().__init__((), media_type=EVENTS, headers={"Cache-Control": "no-store"})
        self._feed = feed
        self._subject = subject
        self._after = after
        self._told = told
        self._wanted = wanted
        self._begins = begins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._feed.opened(self._subject, self._after) as events:
            self.body_iterator = self._lines(events)
            await super().__call__(scope, receive, send)

    async def _lines(self, events: AsyncIterator[E | None]) -> AsyncIterator[bytes]:
        """Yield events as they are sent, and comments that keep the connection open through proxies."""
        if self._begins:
            yield position_of(self._after)
        async for event in events:
            if event is None:
                yield STILL_HERE
            elif self._wanted(event):
                yield line_of(event, self._told)


def told_of(name: str) -> Callable[[Told], Mapping[str, Any]]:
    """Return the function for the data of an event of a job or trial; `name` is the field of its id."""
    return lambda event: {name: event.subject, "attempt": event.attempt, **event.data}
