"""Load shedding: how many requests may wait, and for how long during an overload.

A queue that is always full gives every caller the longest possible wait. So when the queue overflows, it is cut, and
until the overload is over only as many requests may wait as finish in 10 ms. Requests are rejected from their headers
if possible, before the body is read: reading and decoding would cost more than the answer. A request whose body is
still arriving takes no place in the queue.

The overload is over after one second without a rejection, and also after one in which all connections whose requests
were rejected would fit into the queue: callers who try again at once would keep it up otherwise.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from service.errors import QueueFull

_WAIT_S = 0.005  # target waiting time during an overload, without decoding and answering
_CALM_S = 1.0  # without a rejection, or with few rejected callers: the overload is over
_MEASURED_S = 0.1  # period over which answers are counted
_LEAST = 8  # requests that may always wait


class Queue(Protocol):
    """The part of the batcher that Admission uses."""

    @property
    def computing(self) -> int:
        """Number of callers in the batch that is being computed."""
        ...

    def cut(self, keep: int) -> None:
        """Refuse all waiting callers except the newest `keep` with QueueFull."""
        ...


class Admission:
    """Counts requests in progress: use `with admission:` around the work, or `enter` before and `leave` after it.

    Entering raises QueueFull if `limit` requests wait already, or fewer during an overload. `clock` returns seconds.
    `refused` are the connections whose requests were refused, each by a number: the server adds them.
    """

    def __init__(self, queue: Queue, limit: int, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._limit = limit
        self._clock = clock
        self._inside = 0
        self._announced = 0  # in this turn of the event loop; their tasks have not started
        self._allowed = limit  # lower than the limit during an overload
        self.refused: set[int] = set()  # since `_looked_at`
        self._unnamed = 0  # requests that were refused since then, of unknown connections
        self._looked_at = 0.0
        self._look_at = 0.0  # no new decision before
        self._refused_at = 0.0
        self._answered = 0
        self._counted_from = 0.0

    @property
    def waiting(self) -> int:
        """Number of requests that are being decoded or wait for the device."""
        return self._inside + self._announced - self._queue.computing

    def announce(self) -> None:
        """Count a request whose headers have been accepted, until the end of this turn of the event loop: its task
        starts then.
        """
        if not self._announced:
            asyncio.get_running_loop().call_soon(self._settle)
        self._announced += 1

    def full(self) -> bool:
        """Return whether a request would be refused now."""
        return self._inside + self._announced - self._queue.computing >= self._allowed and self._too_many()

    def enter(self) -> None:
        """Count one more request. Raises QueueFull."""
        if self.full():
            self._unnamed += 1
            raise QueueFull
        self._inside += 1

    def leave(self, *, answered: bool) -> None:
        """Count one request less. `answered`: it was not refused with QueueFull."""
        self._inside -= 1
        self._answered += answered

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.leave(answered=kind is not QueueFull)

    def _settle(self) -> None:
        self._announced = 0

    def _too_many(self) -> bool:
        """Return whether to refuse a request that arrived while as many waited as may wait."""
        now = self._clock()
        if now < self._look_at and self._allowed < self._limit:
            self._refused_at = now
            return True
        self._look_at = now + _MEASURED_S
        if self._allowed == self._limit or now - self._refused_at > _CALM_S or self._would_fit(now):
            self._allowed = self._limit
            if self.waiting < self._limit:
                return False
            self._allowed = min(self._limit, _LEAST)
            self._look_from(now)
            self._queue.cut(self._allowed)
            self._answered, self._counted_from = 0, now
        elif now - self._counted_from >= _MEASURED_S:
            a_second = self._answered / (now - self._counted_from)
            self._allowed = min(self._limit, max(_LEAST, int(a_second * _WAIT_S)))
            self._answered, self._counted_from = 0, now
            if self.waiting < self._allowed:
                return False
        self._refused_at = now
        return True

    def _would_fit(self, now: float) -> bool:
        """Return whether a period has ended, and all callers that were refused in it would fit into the queue."""
        if now - self._looked_at < _CALM_S:
            return False
        refused = len(self.refused) + self._unnamed
        self._look_from(now)
        return refused + self.waiting <= self._limit

    def _look_from(self, now: float) -> None:
        self.refused.clear()
        self._unnamed = 0
        self._looked_at = now
