"""The lane of shadow work: computed at low priority, and only begun if no caller waits.

Networks run in a thread of low priority, all else of the work in another one: a thread of low priority that holds the
interpreter's lock, and waits for a processor, would hold up the event loop (priority inversion). The queue is bounded
in samples and bytes. What does not fit is dropped, so shadow work never delays a caller and never fills the memory.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

from service.execution.daemon_thread import LOW, DaemonThread

log = logging.getLogger(__name__)
MOST_SAMPLES = 1024
MOST_BYTES = 32 * 2**20
_AT_ONCE = 16  # samples: a small batch holds no caller up for long if the cores are few
_EVERY_S = 0.004  # between batches at least; meanwhile copies gather
_RESTS = 60  # durations of a batch between it and the next one, if callers are there all the time
_LOOK_S = 0.01  # between looks for callers during a rest
_LOOKS = 20  # over which the share of the time with callers is averaged
_AGAIN_S = 0.001  # if callers wait
_LATE_S = 60.0  # a batch that takes longer hangs
_WATCHES = 10  # until then: a process that was frozen meanwhile counts one


class Copy(Protocol):
    """Samples to compute, for their owner."""

    @property
    def owner(self) -> "Owner":
        """Its `compute` is called with copies, in the thread of the lane."""
        ...

    @property
    def size(self) -> int:
        """Number of samples."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory held by the copy."""
        ...


class Owner(Protocol):
    """Computes its copies, which are all of one type."""

    def compute(self, copies: Sequence[Any], low: Executor) -> None:
        """Compute copies of this owner, in the thread of the lane; networks run in `low`, which has low priority."""
        ...

    def overdue(self, copies: Sequence[Any]) -> None:
        """Give up copies: the batch of the first of them hangs, the others wait for it. In the event loop."""
        ...


class Pace:
    """How long the lane rests after a batch: the longer, the more of the time callers are there.

    A batch holds up the requests that come while it is computed. If callers are there half of the time, batches take 3%
    of the time, which leaves the 99th percentile of the latency as it is; without callers there is nearly no rest.
    """

    def __init__(self) -> None:
        self._busy = 1.0  # share of the time with callers
        self._looked_at = -_EVERY_S

    def looked(self, now: float, *, idle: bool) -> None:
        """Note whether no caller was there at a time, in s. Looks that follow each other faster are one."""
        if now - self._looked_at >= _EVERY_S:
            self._busy += ((not idle) - self._busy) / _LOOKS
            self._looked_at = now

    def rest_s(self, took_s: float) -> float:
        """Return the time between a batch that took `took_s` and the next one."""
        return max(_EVERY_S, took_s * _RESTS * self._busy)


class _Worker:
    """The thread that computes batches, one after the other."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.batch: Sequence[Copy] = ()  # that is computed: set by the event loop, emptied by the thread
        self.hangs = False
        self.is_given_up = False  # the owner of the batch was discarded
        self.took_s = self.ended_at = 0.0  # the batch before
        self._orders: queue.SimpleQueue[Sequence[Copy] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="shadow", daemon=True).start()

    def order(self, copies: Sequence[Copy]) -> None:
        """Have a batch computed."""
        self.batch, self.hangs, self.is_given_up = copies, False, False
        self._orders.put(copies)

    def end(self) -> None:
        """End the thread after its batch."""
        self._orders.put(None)

    def _work(self) -> None:
        with DaemonThread("shadow_0", niceness=LOW) as low:
            while (copies := self._orders.get()) is not None:
                began = self._now()
                try:
                    copies[0].owner.compute(copies, low)
                except Exception:  # our own fault: the owner handles those of the network
                    log.exception("shadow work failed")
                finally:
                    del copies  # the candidate may be gone before the next batch
                    self.ended_at = self._now()
                    self.took_s = self.ended_at - began
                    self.batch = ()


class Lane:
    """The queue, and its thread while there are copies to compute. For the event loop.

    `is_idle` says whether no caller waits and none is being computed; `now` returns seconds.
    """

    def __init__(
        self,
        is_idle: Callable[[], bool],
        *,
        most_samples: int = MOST_SAMPLES,
        most_bytes: int = MOST_BYTES,
        now: Callable[[], float] = time.monotonic,
        late_s: float = _LATE_S,
    ) -> None:
        """A batch that takes more than `late_s` seconds hangs."""
        self._is_idle = is_idle
        self._now = now
        self._most_samples = most_samples
        self._most_bytes = most_bytes
        self._waiting: deque[Copy] = deque()
        self._samples = self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.late_s = late_s
        self._worker: _Worker | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._pace = Pace()

    @property
    def waiting(self) -> int:
        """Number of samples in the queue."""
        return self._samples

    def has_room(self, size: int, nbytes: int = 0) -> bool:
        """Return whether a copy of this size fits into the queue."""
        return self._samples + size <= self._most_samples and self._bytes + nbytes <= self._most_bytes

    def offer(self, copy: Copy) -> bool:
        """Queue a copy. Returns False if there is no room: it is dropped."""
        if not self.has_room(copy.size, copy.nbytes):
            return False
        self._waiting.append(copy)
        self._samples += copy.size
        self._bytes += copy.nbytes
        if self._timer is None:
            self._look_in(_EVERY_S)
        return True

    def discard(self, owner: Owner) -> None:
        """Drop the copies of an owner. A batch that is being computed goes on; if it hangs, others go on without it."""
        worker = self._worker
        if worker is not None and (batch := worker.batch) and batch[0].owner is owner:
            worker.is_given_up = True
            if worker.hangs:
                self.rest()
        self._drop(owner)

    def _drop(self, owner: Owner) -> None:
        left = deque(copy for copy in self._waiting if copy.owner is not owner)
        self._waiting = left
        self._samples, self._bytes = sum(copy.size for copy in left), sum(copy.nbytes for copy in left)

    def rest(self) -> None:
        """End the thread after its batch, until there are copies again."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def close(self) -> None:
        """Drop all copies and end the thread."""
        self._waiting.clear()
        self._samples = self._bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.rest()

    def _look_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        """Have the next batch computed if nothing else is."""
        self._timer = None
        if not self._waiting:
            return
        worker = self._worker
        if worker is not None and worker.batch:
            self._look_in(_LOOK_S if worker.hangs else _AGAIN_S)
            return
        now, idle = self._now(), self._is_idle()
        self._pace.looked(now, idle=idle)
        left_s = self._pace.rest_s(worker.took_s) - (now - worker.ended_at) if worker and worker.took_s else 0.0
        if left_s > 0 or not idle:
            self._look_in(min(left_s, _LOOK_S) if left_s > 0 else _AGAIN_S)
            return
        if worker is None:
            worker = self._worker = _Worker(self._now)
        worker.order(self._next())
        self._watch(worker, _WATCHES)
        self._look_in(_EVERY_S)

    def _watch(self, worker: _Worker, left: int) -> None:
        """Look `left` times whether a batch is still computed. After the last, it hangs."""
        if self._watching is not None:
            self._watching.cancel()
        later = asyncio.get_running_loop().call_later
        self._watching = later(self.late_s / _WATCHES, self._watched, worker, left - 1)

    def _watched(self, worker: _Worker, left: int) -> None:
        self._watching = None
        batch = worker.batch
        if not batch:
            return
        if left:
            self._watch(worker, left)
            return
        owner = batch[0].owner
        late = [] if worker.hangs else list(batch)
        late += [copy for copy in self._waiting if copy.owner is owner]
        if worker.is_given_up:
            self.rest()
        else:
            self._drop(owner)
            worker.hangs = True
            self._watch(worker, _WATCHES)  # those that come now wait for it, too
        if late:
            owner.overdue(late)

    def _next(self) -> Sequence[Copy]:
        """Take the first copy, and those after it of the same owner that fit in a small batch."""
        taken: list[Copy] = []
        size = 0
        while self._waiting:
            copy = self._waiting[0]
            if taken and (copy.owner is not taken[0].owner or size + copy.size > _AT_ONCE):
                break
            taken.append(self._waiting.popleft())
            size += copy.size
            self._samples -= copy.size
            self._bytes -= copy.nbytes
        return taken
