"""Micro-batching: requests that wait together are computed together. Uses asyncio only: no torch, no HTTP.

Each lane (a model, or one version of it) has a queue. While the device computes one batch, the next one fills up.
As soon as the device is free, a batch takes all waiting requests, so an idle service adds no delay. Lanes take turns
on the device: its lock is first come, first served.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np

from models.spec import Array
from service.errors import DeadlineExceeded, QueueFull

Compute = Callable[[Hashable, Array], Awaitable[tuple[int, Array]]]  # lane, samples (N, ...) -> version, values (N, k)


@dataclass(frozen=True, slots=True)
class Answer:
    """Values (N, k) of one caller's N samples, all computed by one version, and the seconds spent.

    `finite`: the whole batch has only finite values. Otherwise some value is NaN or infinite, perhaps another caller's.
    """

    version: int
    values: Array
    finite: bool
    queue_s: float
    forward_s: float


class Receiver(Protocol):
    """The destination of an answer: a future, or an object that is called directly. Its methods raise nothing."""

    def done(self) -> bool:
        """Return whether an answer was set, or is no longer wanted."""
        ...

    def set_result(self, result: Answer, /) -> None:
        """Set the answer."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Set the error."""
        ...


@dataclass(slots=True, eq=False)
class _Caller:
    samples: Array
    receiver: Receiver
    arrived: float
    timeout_s: float

    @property
    def deadline(self) -> float:
        return self.arrived + self.timeout_s


class Batcher:
    """Collects callers' samples into batches for `compute`.

    A batch has at most `max_batch` samples; a caller with more gets a batch alone and is never cut.
    `max_wait_s` is how long the first caller of a batch that is not full waits for others.
    """

    def __init__(
        self, compute: Compute, *, max_batch: int, max_wait_s: float = 0, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._compute = compute
        self._now = now
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._lanes: dict[Hashable, deque[_Caller]] = {}
        self._arrival = asyncio.Event()
        self._device = asyncio.Lock()
        self._loops: set[asyncio.Task[None]] = set()
        self._batch: list[_Caller] = []  # the batch that is being computed
        self._alarm: asyncio.TimerHandle | None = None  # at the earliest deadline, or before it
        self._alarm_at = math.inf

    @property
    def waiting(self) -> int:
        """Number of waiting callers, over all lanes."""
        return sum(map(len, self._lanes.values()))

    @property
    def computing(self) -> int:
        """Number of callers in the batch that is being computed."""
        return len(self._batch)

    def cut(self, keep: int) -> None:
        """Refuse all waiting callers except the newest `keep` with QueueFull."""
        callers = sorted((caller for queue in self._lanes.values() for caller in queue), key=lambda one: one.arrived)
        for caller in callers[: max(0, len(callers) - keep)]:
            if not caller.receiver.done():
                caller.receiver.set_exception(QueueFull())

    async def submit(self, lane: Hashable, samples: Array, timeout_s: float) -> Answer:
        """Return the values of `samples` (N, ...), N at least 1.

        Raises DeadlineExceeded after `timeout_s`, QueueFull if the queue is cut, or the error of `compute` for this
        batch.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.enqueue(lane, samples, timeout_s, future)
        return await future

    def enqueue(self, lane: Hashable, samples: Array, timeout_s: float, receiver: Receiver) -> None:
        """Queue samples for a receiver, as `submit` does for a future. A receiver that is done is dropped."""
        caller = _Caller(samples, receiver, self._now(), timeout_s)
        if caller.deadline < self._alarm_at:
            self._set_alarm(caller.deadline)
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
            serving = asyncio.get_running_loop().create_task(self._serve(lane))
            self._loops.add(serving)
            serving.add_done_callback(self._loops.discard)
        queue.append(caller)
        self._arrival.set()

    async def drain(self) -> None:
        """Wait until every queued caller has an answer."""
        while self._loops:
            await asyncio.wait(set(self._loops))

    async def _serve(self, lane: Hashable) -> None:
        """Compute batches until the lane is empty; the next caller starts a new task."""
        queue = self._lanes[lane]
        while queue:
            if self._max_wait_s:
                await self._wait_for_company(queue)
            async with self._device:
                self._batch = self._take(queue)
                await self._compute_batch(lane, self._batch)
                self._batch = []
        del self._lanes[lane]

    async def _wait_for_company(self, queue: deque[_Caller]) -> None:
        latest = queue[0].arrived + self._max_wait_s
        while sum(len(caller.samples) for caller in queue) < self._max_batch:
            self._arrival.clear()
            try:
                async with asyncio.timeout(latest - self._now()):
                    await self._arrival.wait()
            except TimeoutError:
                return

    def _set_alarm(self, moment: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = moment
        self._alarm = asyncio.get_running_loop().call_later(moment - self._now(), self._expire)

    def _expire(self) -> None:
        """Fail the callers whose deadline has passed. One timer serves all, since most callers are answered long
        before.
        """
        self._alarm, self._alarm_at = None, math.inf
        callers = [*self._batch, *chain.from_iterable(self._lanes.values())]
        now = self._now()
        for caller in callers:
            if caller.deadline <= now and not caller.receiver.done():
                late = f"no answer within {caller.timeout_s:g} s: send less at once, or later"
                caller.receiver.set_exception(DeadlineExceeded(late))
        later = [caller.deadline for caller in callers if not caller.receiver.done()]
        if later:
            self._set_alarm(min(later))

    def _take(self, queue: deque[_Caller]) -> list[_Caller]:
        """Take the next callers, as many as fit in a batch; drop those that are done."""
        batch: list[_Caller] = []
        size = 0
        while queue and (not batch or size + len(queue[0].samples) <= self._max_batch):
            caller = queue.popleft()
            if not caller.receiver.done():
                batch.append(caller)
                size += len(caller.samples)
        return batch

    async def _compute_batch(self, lane: Hashable, batch: list[_Caller]) -> None:
        """Call `compute` once. An exception fails this batch and no other."""
        if not batch:
            return
        started = self._now()
        try:
            samples = batch[0].samples if len(batch) == 1 else np.concatenate([caller.samples for caller in batch])
            version, values = await self._compute(lane, samples)
        except Exception as err:  # noqa: BLE001 - the three edges where any exception is caught: batch, job, rollout
            for caller in batch:
                if not caller.receiver.done():
                    caller.receiver.set_exception(err)
            return
        forward_s = self._now() - started
        finite = bool(np.isfinite(values).all())
        row = 0
        for caller in batch:
            rows = values[row : row + len(caller.samples)]
            row += len(caller.samples)
            if not caller.receiver.done():
                queue_s = started - caller.arrived
                caller.receiver.set_result(Answer(version, rows, finite, queue_s, forward_s))
