"""Micro-batching: requests that wait together are computed together. asyncio only: no torch, no HTTP.

Each lane (a model, or one version of it) has a queue. While the device computes one batch, the next one gathers;
as soon as the device is free a batch takes what waits, so an idle service adds no waiting time. Lanes take turns
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
    """Values (N, k) of one caller's N samples, all from one version, and the seconds spent.

    `finite`: no value of the whole batch is NaN or infinite; else some value is, maybe another caller's.
    """

    version: int
    values: Array
    finite: bool
    queue_s: float
    forward_s: float


class Receiver(Protocol):
    """Who is told: a future, or what need not wait for its turn of the event loop. Its methods raise nothing."""

    def done(self) -> bool:
        """Whether it has been told, or no longer wants to be."""
        ...

    def set_result(self, result: Answer, /) -> None:
        """The answer."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Why there is none."""
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
    """Gathers callers' samples into batches for `compute`.

    `max_batch` samples are gathered at most; a caller with more of them is a batch of its own, never cut.
    `max_wait_s` is how long the first caller of a batch waits for company when the batch is not full.
    """

    def __init__(self, compute: Compute, *, max_batch: int, max_wait_s: float = 0) -> None:
        self._compute = compute
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._lanes: dict[Hashable, deque[_Caller]] = {}
        self._arrival = asyncio.Event()
        self._device = asyncio.Lock()
        self._loops: set[asyncio.Task[None]] = set()
        self._batch: list[_Caller] = []  # that is computed now
        self._alarm: asyncio.TimerHandle | None = None  # at the earliest deadline, or before it
        self._alarm_at = math.inf

    @property
    def waiting(self) -> int:
        """Callers that wait, over all lanes."""
        return sum(map(len, self._lanes.values()))

    @property
    def computing(self) -> int:
        """Callers in the batch that is computed now."""
        return len(self._batch)

    def cut(self, keep: int) -> None:
        """All but the newest `keep` of those that wait are refused with QueueFull."""
        callers = sorted((caller for queue in self._lanes.values() for caller in queue), key=lambda one: one.arrived)
        for caller in callers[: max(0, len(callers) - keep)]:
            if not caller.receiver.done():
                caller.receiver.set_exception(QueueFull())

    async def submit(self, lane: Hashable, samples: Array, timeout_s: float) -> Answer:
        """The values of `samples` (N, ...), N at least 1.

        Raises DeadlineExceeded after `timeout_s`, QueueFull where the queue is cut, or what `compute` raised for this
        batch.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.enqueue(lane, samples, timeout_s, future)
        return await future

    def enqueue(self, lane: Hashable, samples: Array, timeout_s: float, receiver: Receiver) -> None:
        """The same, for a receiver. One that is done drops out."""
        caller = _Caller(samples, receiver, time.perf_counter(), timeout_s)
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
        """Wait until every caller that was taken in has its answer."""
        while self._loops:
            await asyncio.wait(set(self._loops))

    async def _serve(self, lane: Hashable) -> None:
        """Compute batches until nobody waits in the lane; the next caller starts anew."""
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
                async with asyncio.timeout(latest - time.perf_counter()):
                    await self._arrival.wait()
            except TimeoutError:
                return

    def _set_alarm(self, moment: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = moment
        self._alarm = asyncio.get_running_loop().call_later(moment - time.perf_counter(), self._expire)

    def _expire(self) -> None:
        """Fail those whose time is over. One timer for all: most are answered long before, and ask nothing of it."""
        self._alarm, self._alarm_at = None, math.inf
        callers = [*self._batch, *chain.from_iterable(self._lanes.values())]
        now = time.perf_counter()
        for caller in callers:
            if caller.deadline <= now and not caller.receiver.done():
                late = f"no answer within {caller.timeout_s:g} s: send less at once, or later"
                caller.receiver.set_exception(DeadlineExceeded(late))
        later = [caller.deadline for caller in callers if not caller.receiver.done()]
        if later:
            self._set_alarm(min(later))

    def _take(self, queue: deque[_Caller]) -> list[_Caller]:
        """The next callers, as many as fit; those that went away are dropped."""
        batch: list[_Caller] = []
        size = 0
        while queue and (not batch or size + len(queue[0].samples) <= self._max_batch):
            caller = queue.popleft()
            if not caller.receiver.done():
                batch.append(caller)
                size += len(caller.samples)
        return batch

    async def _compute_batch(self, lane: Hashable, batch: list[_Caller]) -> None:
        """One call of `compute`. Whatever it raises fails this batch and no other."""
        if not batch:
            return
        started = time.perf_counter()
        try:
            samples = batch[0].samples if len(batch) == 1 else np.concatenate([caller.samples for caller in batch])
            version, values = await self._compute(lane, samples)
        except Exception as err:  # noqa: BLE001 - the three edges where any exception is caught: batch, job, rollout
            for caller in batch:
                if not caller.receiver.done():
                    caller.receiver.set_exception(err)
            return
        forward_s = time.perf_counter() - started
        finite = bool(np.isfinite(values).all())
        row = 0
        for caller in batch:
            rows = values[row : row + len(caller.samples)]
            row += len(caller.samples)
            if not caller.receiver.done():
                queue_s = started - caller.arrived
                caller.receiver.set_result(Answer(version, rows, finite, queue_s, forward_s))
