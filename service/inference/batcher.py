"""Micro-batching: requests that wait together are computed together. Uses asyncio only: no torch, no HTTP.

Each lane (a model, or one version of it) has a queue. While one batch is computed, the next one fills up, and takes all
waiting requests, so an idle service adds no delay. A batch that takes at most milliseconds is computed on the event
loop. The others share the device: a long one is cut into slices of bounded time, and after each slice the lane that
has used the device least is next.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

from models.samples import Batch, Columns, all_finite, joined, rejoined
from service.errors import DeadlineExceeded, QueueFull
from service.inference.fair_lock import FairLock
from service.inference.pace import Pace, RaggedPace


class Forward(Protocol):
    """The network of a lane, taken once for a whole batch: all its slices are computed by one version."""

    @property
    def version(self) -> int:
        """The number that answers carry."""
        ...

    @property
    def brief(self) -> int:
        """How many samples `now` may compute; 0 if the device computes one batch at a time."""
        ...

    @property
    def pace(self) -> Pace:
        """The network's estimated time per sample; learns from each slice."""
        ...

    def now(self, samples: Any) -> Any:
        """Compute values (N, k) of samples (N, ...), and block the event loop meanwhile."""
        ...

    def later(self, samples: Any) -> Awaitable[Any]:
        """Compute values (N, k) of samples (N, ...) in a thread."""
        ...


Take = Callable[[Hashable], Forward]  # lane -> its network
Hold = Callable[[Hashable], Awaitable[object]]  # lane -> an object that keeps its network loaded, once it is


@dataclass(frozen=True, slots=True)
class Answer:
    """Values of one caller's N samples, all computed by one version, and the seconds spent.

    `values` is a Batch: an array (N, k), or named arrays.

    `finite`: the whole batch has only finite values. Otherwise some value is NaN or infinite, perhaps another caller's.
    """

    version: int
    values: Any
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
    samples: Batch
    receiver: Receiver
    arrived: float
    timeout_s: float
    alone: bool = False  # computed without others, because their batch failed

    @property
    def deadline(self) -> float:
        return self.arrived + self.timeout_s


@dataclass(slots=True, eq=False)
class _Batch:
    """Callers whose samples are computed together by one network, and the values computed so far.

    Samples of different lengths are computed in another order than that of the callers: `order` has their positions.
    """

    callers: list[_Caller]
    samples: Batch
    forward: Forward
    order: Sequence[int] | None = None
    parts: list[Batch] = field(default_factory=list)
    row: int = 0  # the first one that is not computed
    forward_s: float = 0.0

    @classmethod
    def of(cls, callers: list[_Caller], forward: Forward) -> "_Batch":
        """Put the callers' samples together, in the order of computing."""
        samples, pace = _together(callers), forward.pace
        if isinstance(pace, RaggedPace) and isinstance(samples, Columns) and len(samples) > 1:
            order = pace.order(samples)
            return cls(callers, samples.take(order), forward, order)
        return cls(callers, samples, forward)

    @property
    def values(self) -> Batch:
        """The values of all samples, in the order of the callers."""
        values = self.parts[0] if len(self.parts) == 1 else joined(self.parts)
        return values if self.order is None else rejoined([values], [self.order])

    @property
    def left(self) -> int:
        """Number of samples still to be computed; 0 if no caller wants them any more."""
        wanted = any(not caller.receiver.done() for caller in self.callers)
        return len(self.samples) - self.row if wanted else 0

    async def compute_slice(self, now: Callable[[], float]) -> None:
        """Compute the next slice."""
        size, cost = self.forward.pace.cut(self.samples, self.row)
        began = now()
        self.parts.append(await self.forward.later(self.samples[self.row : self.row + size]))
        spent_s = now() - began
        self.forward.pace.learn(cost, spent_s)
        self.forward_s += spent_s
        self.row += size


class Batcher:
    """Collects callers' samples into batches, for the network that `take` returns for their lane.

    A batch has at most `max_batch` samples, and no more than fit in one slice (see Pace); a caller with more gets a
    batch alone, of several slices. It still gets one answer, from one version. `max_wait_s` is how long the first
    caller of a batch that is not full waits for others. `hold`, if networks are loaded on demand, is awaited before
    each batch: no other lane waits for it.
    """

    def __init__(
        self,
        take: Take,
        *,
        max_batch: int,
        max_wait_s: float = 0,
        now: Callable[[], float] = time.perf_counter,
        hold: Hold | None = None,
    ) -> None:
        self._forward = take
        self._hold = hold
        self._held: dict[Hashable, object] = {}  # by lane, until its batch is done
        self._now = now
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._lanes: dict[Hashable, deque[_Caller]] = {}
        self._arrival = asyncio.Event()
        self._device = FairLock(now)
        self._loops: set[asyncio.Task[None]] = set()
        self._batches: dict[Hashable, list[_Caller]] = {}  # those that are being computed, by lane
        self._computing = 0  # their number: it is asked for twice a request
        self._alarm: asyncio.TimerHandle | None = None  # at the earliest deadline, or before it
        self._alarm_at = math.inf

    @property
    def waiting(self) -> int:
        """Number of waiting callers, over all lanes."""
        return sum(map(len, self._lanes.values()))

    @property
    def computing(self) -> int:
        """Number of callers whose samples are being computed."""
        return self._computing

    def cut(self, keep: int) -> None:
        """Refuse all waiting callers except the newest `keep` with QueueFull."""
        callers = sorted((caller for queue in self._lanes.values() for caller in queue), key=lambda one: one.arrived)
        for caller in callers[: max(0, len(callers) - keep)]:
            if not caller.receiver.done():
                caller.receiver.set_exception(QueueFull())

    async def submit(self, lane: Hashable, samples: Batch, timeout_s: float) -> Answer:
        """Return the values of `samples` (N, ...), N at least 1.

        Raises DeadlineExceeded after `timeout_s`, QueueFull if the queue is cut, or the error of the network for this
        batch.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.enqueue(lane, samples, timeout_s, future)
        return await future

    def enqueue(self, lane: Hashable, samples: Batch, timeout_s: float, receiver: Receiver) -> None:
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
            if self._hold is not None and not await self._is_held(self._hold, lane, queue):
                continue
            if not self._compute_now(lane, queue):
                await self._compute_in_turns(lane, queue)
        self._held.pop(lane, None)
        del self._lanes[lane]

    async def _is_held(self, hold: Hold, lane: Hashable, queue: deque[_Caller]) -> bool:
        """Wait until the network of a lane is loaded. If it cannot be, all callers get the error."""
        try:
            self._held[lane] = await hold(lane)
        except Exception as err:  # noqa: BLE001 - the edge, as in _compute_now
            callers = list(queue)
            queue.clear()
            _fail(callers, err)
            return False
        return True

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
        callers = list(chain.from_iterable([*self._batches.values(), *self._lanes.values()]))
        now = self._now()
        for caller in callers:
            if caller.deadline <= now and not caller.receiver.done():
                late = f"no answer within {caller.timeout_s:g} s: send less at once, or later"
                caller.receiver.set_exception(DeadlineExceeded(late))
        later = [caller.deadline for caller in callers if not caller.receiver.done()]
        if later:
            self._set_alarm(min(later))

    def _take(self, lane: Hashable, queue: deque[_Caller]) -> tuple[Forward, list[_Caller]] | None:
        """Take the lane's network and the next callers, as many as fit in a batch; drop those that are done.

        If there is no network, the callers get the error. Returns None if there is nothing to compute.
        """
        try:
            forward = self._forward(lane)
        except Exception as err:  # noqa: BLE001 - the edge, as in _compute_now
            _fail(_first(queue, self._max_batch), err)
            return None
        pace = forward.pace
        callers = _first(queue, min(self._max_batch, max(pace.at_once, forward.brief)))
        if len(callers) > 1 and isinstance(pace, RaggedPace):
            fitting = pace.first_of(caller.samples.size for caller in callers)
            queue.extendleft(reversed(callers[fitting:]))
            callers = callers[:fitting]
        return (forward, callers) if callers else None

    def _compute_now(self, lane: Hashable, queue: deque[_Caller]) -> bool:
        """Compute the next batch on the event loop. Returns False if it is too long; it stays in the queue."""
        if (taken := self._take(lane, queue)) is None:
            return True
        forward, callers = taken
        if sum(len(caller.samples) for caller in callers) > forward.brief:
            queue.extendleft(reversed(callers))
            return False
        self._begin(lane, callers)
        started = self._now()
        try:
            values = forward.now(_together(callers))
            self._answer(callers, forward.version, values, self._now() - started)
        except Exception as err:  # noqa: BLE001 - the three edges where any exception is caught: batch, job, rollout
            _fail_or_retry(queue, callers, err)
        self._end(lane)
        return True

    async def _compute_in_turns(self, lane: Hashable, queue: deque[_Caller]) -> None:
        """Compute the next batch in slices, one in each turn on the device. An exception fails this batch and no
        other.
        """
        batch: _Batch | None = None
        callers: list[_Caller] = []
        try:
            while batch is None or batch.left:
                async with self._device.turn(lane):
                    if batch is None:
                        if (taken := self._take(lane, queue)) is None:
                            return
                        forward, callers = taken
                        self._begin(lane, callers)
                        batch = _Batch.of(callers, forward)
                    if batch.left:  # as before it waited for this turn
                        await batch.compute_slice(self._now)
            self._answer(callers, batch.forward.version, batch.values, batch.forward_s)
        except Exception as err:  # noqa: BLE001 - the edge, as in _compute_now
            _fail_or_retry(queue, callers, err)
        finally:
            self._end(lane)

    def _begin(self, lane: Hashable, callers: list[_Caller]) -> None:
        self._batches[lane] = callers
        self._computing += len(callers)

    def _end(self, lane: Hashable) -> None:
        self._computing -= len(self._batches.pop(lane, ()))

    def _answer(self, callers: list[_Caller], version: int, values: Batch, forward_s: float) -> None:
        """Give each caller its rows. `forward_s`: seconds of computing, without those between slices."""
        finite = all_finite(values)
        finished = self._now()
        row = 0
        for caller in callers:
            rows = values[row : row + len(caller.samples)]
            row += len(caller.samples)
            if not caller.receiver.done():
                queue_s = finished - caller.arrived - forward_s
                caller.receiver.set_result(Answer(version, rows, finite, queue_s, forward_s))


def _first(queue: deque[_Caller], limit: int) -> list[_Caller]:
    """Remove the first callers, with at most `limit` samples or alone; drop those that are done."""
    callers: list[_Caller] = []
    size = 0
    while queue and (not callers or (size + len(queue[0].samples) <= limit and not queue[0].alone)):
        caller = queue.popleft()
        if not caller.receiver.done():
            callers.append(caller)
            size += len(caller.samples)
            if caller.alone:
                break
    return callers


def _together(callers: list[_Caller]) -> Batch:
    return callers[0].samples if len(callers) == 1 else joined([caller.samples for caller in callers])


def _fail_or_retry(queue: deque[_Caller], callers: list[_Caller], err: Exception) -> None:
    """Fail a caller whose batch failed; of several, compute each again by itself, so that the others are answered."""
    waiting = [caller for caller in callers if not caller.receiver.done()]
    if len(callers) == 1:
        _fail(waiting, err)
        return
    for caller in waiting:
        caller.alone = True
    queue.extendleft(reversed(waiting))


def _fail(callers: Iterable[_Caller], err: Exception) -> None:
    for caller in callers:
        if not caller.receiver.done():
            caller.receiver.set_exception(err)
