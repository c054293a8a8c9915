"""A lock that shares a device among lanes by the time that they use it (start-time fair queueing)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager


class FairLock:
    """One lane holds the lock at a time. When it is released, the waiting lane that has used it least gets it next.

    A lane that was idle starts level with the lane that holds the lock: time that it did not ask for is not saved up.
    A lane that releases the lock and asks again in the same turn of the event loop competes with those that wait.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._held = False  # or about to be granted
        self.turns: dict[Hashable, float] = {}  # the lane whose turn it is, and since when
        self._waiting: dict[Hashable, asyncio.Future[None]] = {}  # by lane, in order of arrival
        self._used: dict[Hashable, float] = {}  # by lane: seconds, from a common start
        self._level = 0.0  # of the last lane that got the lock, then

    @asynccontextmanager
    async def turn(self, lane: Hashable) -> AsyncIterator[None]:
        """Hold the lock inside the context, and count the time. A lane asks for one turn at a time."""
        self._used[lane] = max(self._used.get(lane, 0.0), self._level)
        if self._held:
            await self._granted(lane)
        self._held = True
        self._level = self._used[lane]
        began = self.turns[lane] = self._now()
        try:
            yield
        finally:
            del self.turns[lane]
            self._used[lane] += self._now() - began
            self._release()

    async def _granted(self, lane: Hashable) -> None:
        waiting = self._waiting[lane] = asyncio.get_running_loop().create_future()
        try:
            await waiting
        except asyncio.CancelledError:
            if self._waiting.pop(lane, None) is None:  # granted, and cancelled in the same turn of the event loop
                self._release()
            raise

    def _release(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._grant)
        else:
            self._held = False
            self._used.clear()
            self._level = 0.0

    def _grant(self) -> None:
        """Give the lock to the waiting lane that has used it least. Lanes behind the new level need no memory."""
        if not self._waiting:  # it was cancelled
            self._release()
            return
        lane = min(self._waiting, key=self._used.__getitem__)
        level = self._used[lane]
        self._used = {one: used for one, used in self._used.items() if used > level or one in self._waiting}
        self._waiting.pop(lane).set_result(None)
