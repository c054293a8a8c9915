"""Micro-batching: requests that wait together are computed together. asyncio only: no torch, no HTTP.

Each lane (a model, or one version of it) has a queue. While the device computes one batch, the next one gathers;
as soon as the device is free a batch takes what waits, so an idle service adds no waiting time. Lanes take turns
on the device: its lock is first come, first served.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

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


@dataclass(slots=True, eq=False)
class _Caller:
    samples: Array
    future: asyncio.Future[Answer]
    arrived: float = field(default_factory=time.perf_counter)


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
        self._computing = 0

    @property
    def waiting(self) -> int:
        """Callers that wait, over all lanes."""
        return sum(map(len, self._lanes.values()))

    @property
    def computing(self) -> int:
        """Callers in the batch that is computed now."""
        return self._computing

    def cut(self, keep: int) -> None:
        """All but the newest `keep` of those that wait are refused with QueueFull."""
        callers = sorted((caller for queue in self._lanes.values() for caller in queue), key=lambda one: one.arrived)
        for caller in callers[: max(0, len(callers) - keep)]:
            if not caller.future.done():
                caller.future.set_exception(QueueFull())

    async def submit(self, lane: Hashable, samples: Array, timeout_s: float) -> Answer:
        """The values of `samples` (N, ...), N at least 1.

        Raises DeadlineExceeded after `timeout_s`, QueueFull where the queue is cut, or what `compute` raised for this
        batch.
        """
        loop = asyncio.get_running_loop()
        caller = _Caller(samples, loop.create_future())
        deadline = loop.call_later(timeout_s, _expire, caller.future, timeout_s)
        if lane not in self._lanes:
            self._lanes[lane] = deque()
            serving = loop.create_task(self._serve(lane))
            self._loops.add(serving)
            serving.add_done_callback(self._loops.discard)
        self._lanes[lane].append(caller)
        self._arrival.set()
        try:
            return await caller.future
        finally:
            deadline.cancel()

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
                batch = self._take(queue)
                self._computing = len(batch)
                await self._compute_batch(lane, batch)
                self._computing = 0
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

    def _take(self, queue: deque[_Caller]) -> list[_Caller]:
        """The next callers, as many as fit; those that went away are dropped."""
        batch: list[_Caller] = []
        size = 0
        while queue and (not batch or size + len(queue[0].samples) <= self._max_batch):
            caller = queue.popleft()
            if not caller.future.done():
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
        except Exception as err:  # noqa: BLE001 - one of the three edges: batch, job, rollout
            for caller in batch:
                if not caller.future.done():
                    caller.future.set_exception(err)
            return
        forward_s = time.perf_counter() - started
        finite = bool(np.isfinite(values).all())
        row = 0
        for caller in batch:
            rows = values[row : row + len(caller.samples)]
            row += len(caller.samples)
            if not caller.future.done():
                caller.future.set_result(Answer(version, rows, finite, started - caller.arrived, forward_s))


def _expire(future: asyncio.Future[Answer], timeout_s: float) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded(f"no answer within {timeout_s:g} s: send less at once, or later"))
