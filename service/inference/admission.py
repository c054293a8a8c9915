"""Who is let in: how many requests may wait and, where there are too many of them, for how long.

A queue that is full all the time gives everybody the longest wait there is. So one that ran full is cut, and until a
second has passed in which nobody had to be sent away, only so many wait as are answered in a moment. Who is refused is
refused by the head alone where that is known by then: to read and decode for nothing would cost more than the answer. A
body that is still on its way takes nobody's place.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from service.errors import QueueFull

_WAIT_S = 0.01  # how long a request waits where there are too many of them; reading and answering come on top
_CALM_S = 1.0  # without anybody sent away: there are no longer too many
_MEASURED_S = 0.1  # over which answers are counted
_LEAST = 8  # may wait in any case


class Queue(Protocol):
    """What Admission knows of the batcher."""

    @property
    def computing(self) -> int:
        """Callers in the batch that is computed now."""
        ...

    def cut(self, keep: int) -> None:
        """All but the newest `keep` of those that wait are told that the queue is full."""
        ...


class Admission:
    """Counts the requests that are inside: `with admission:` around what a request is answered with, or `enter` before
    and `leave` after it.

    Raises QueueFull on entering, where `limit` wait already, or fewer while there are too many. `clock` tells seconds.
    """

    def __init__(self, queue: Queue, limit: int, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._limit = limit
        self._clock = clock
        self._inside = 0
        self._announced = 0  # in this turn of the event loop: their tasks have not begun yet
        self._allowed = limit  # less than the limit where there are too many
        self._refused_at = 0.0
        self._answered = 0
        self._counted_from = 0.0

    @property
    def waiting(self) -> int:
        """Requests that are being decoded, or wait for the device."""
        return self._inside + self._announced - self._queue.computing

    def announce(self) -> None:
        """A request whose head has come goes on. It mostly enters in this turn of the event loop."""
        if not self._announced:
            asyncio.get_running_loop().call_soon(self._settle)
        self._announced += 1

    def full(self) -> bool:
        """Whether nobody may enter now."""
        return self.waiting >= self._allowed and self._too_many()

    def enter(self) -> None:
        """One more is inside. Raises QueueFull."""
        if self.full():
            raise QueueFull
        self._inside += 1

    def leave(self, *, answered: bool) -> None:
        """One less is. `answered`: not refused with QueueFull."""
        self._inside -= 1
        self._answered += answered

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.leave(answered=kind is not QueueFull)

    def _settle(self) -> None:
        self._announced = 0

    def _too_many(self) -> bool:
        """Whether to send away the request that has come while as many waited as were allowed to."""
        now = self._clock()
        if self._allowed == self._limit or now - self._refused_at > _CALM_S:
            self._allowed = self._limit
            if self.waiting < self._limit:
                return False
            self._allowed = min(self._limit, _LEAST)
            self._queue.cut(self._allowed)
            self._answered, self._counted_from = 0, now
        elif now - self._counted_from > _MEASURED_S:
            a_second = self._answered / (now - self._counted_from)
            self._allowed = min(self._limit, max(_LEAST, int(a_second * _WAIT_S)))
            self._answered, self._counted_from = 0, now
            if self.waiting < self._allowed:
                return False
        self._refused_at = now
        return True
