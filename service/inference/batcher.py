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
from collections.abc import Awaitable, Callable, Hashable
from itertools import chain

from models.samples import Batch, all_finite
from service.errors import DeadlineExceeded, QueueFull
from service.inference.callers import Answer, Caller, Callers, Forward, Receiver, fail, fail_or_retry, first, together
from service.inference.fair_lock import FairLock
from service.inference.pace import RaggedPace

HUNG_S = 60.0
Take = Callable[[Hashable], Forward]  # lane -> its network
Hold = Callable[[Hashable], Awaitable[object]]  # lane -> an object that keeps its network loaded, once it is


class Batcher:
    """Collects callers' samples into batches, for the network that `take` returns for their lane.

    A batch has at most `max_batch` samples, and no more than fit in one slice (see Pace); a caller with more gets a
    batch alone, of several slices. It still gets one answer, from one version. `max_wait_s` is how long the first
    caller of a batch that is not full waits for others. `hold`, if networks are loaded on demand, is awaited before
    each batch: no other lane waits for it. A slice that goes on for `hung_s` seconds after its last caller has given up
    hangs.
    """

    def __init__(
        self,
        take: Take,
        *,
        max_batch: int,
        max_wait_s: float = 0,
        now: Callable[[], float] = time.perf_counter,
        hold: Hold | None = None,
        hung_s: float = HUNG_S,
    ) -> None:
        self._forward = take
        self._hold = hold
        self._held: dict[Hashable, object] = {}  # by lane, until its batch is done
        self._now = now
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._lanes: dict[Hashable, deque[Caller]] = {}
        self._arrival = asyncio.Event()
        self._device = FairLock(now)
        self._hung_s = hung_s
        self._in_turns: dict[Hashable, Callers] = {}  # batches that are computed in slices, by lane
        self._begun: list[Hashable] = []  # lanes whose first callers came in this turn of the event loop
        self._loops: set[asyncio.Task[None]] = set()
        self._batches: dict[Hashable, list[Caller]] = {}  # those that are being computed, by lane
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
        caller = Caller(samples, receiver, self._now(), timeout_s)
        if caller.deadline < self._alarm_at:
            self._set_alarm(caller.deadline)
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
            if self._max_wait_s or self._hold is not None:
                self._serve_in_task(lane)
            else:
                if not self._begun:
                    asyncio.get_running_loop().call_soon(self._serve_begun)
                self._begun.append(lane)
        queue.append(caller)
        self._arrival.set()

    async def drain(self) -> None:
        """Wait until every queued caller has an answer. From now on, a slice without callers is given up at once."""
        self._hung_s = 0.0
        for batch in self._in_turns.values():
            if not batch.is_wanted:
                batch.give_up()
        while self._lanes:
            await (asyncio.wait(set(self._loops)) if self._loops else asyncio.sleep(0))

    def _serve_begun(self) -> None:
        """Serve the lanes that got callers in the last turn of the event loop.

        With many models most batches have one caller: a task for each lane would cost a tenth of it.
        """
        begun, self._begun = self._begun, []
        for lane in begun:
            queue, is_brief = self._lanes[lane], True
            while queue and is_brief:
                is_brief = self._compute_now(lane, queue)
            if queue:
                self._serve_in_task(lane)
            else:
                del self._lanes[lane]

    def _serve_in_task(self, lane: Hashable) -> None:
        serving = asyncio.get_running_loop().create_task(self._serve(lane))
        self._loops.add(serving)
        serving.add_done_callback(self._loops.discard)

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

    async def _is_held(self, hold: Hold, lane: Hashable, queue: deque[Caller]) -> bool:
        """Wait until the network of a lane is loaded. If it cannot be, all callers get the error."""
        try:
            self._held[lane] = await hold(lane)
        except Exception as err:  # noqa: BLE001 - the edge, as in _compute_now
            callers = list(queue)
            queue.clear()
            fail(callers, err)
            return False
        return True

    async def _wait_for_company(self, queue: deque[Caller]) -> None:
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
        waiting = [
            (lane, caller)
            for lane, callers in chain(self._batches.items(), self._lanes.items())
            for caller in callers
            if not caller.receiver.done()
        ]
        now = self._now()
        for lane, caller in waiting:
            if caller.deadline <= now:
                late = f"no answer within {caller.timeout_s:g} s: send less at once, or later"
                is_blocked = self._is_blocked(lane, caller)
                caller.receiver.set_exception(DeadlineExceeded(late, is_blocked=is_blocked))
        later = [caller.deadline for _, caller in waiting if not caller.receiver.done()]
        if later:
            self._set_alarm(min(later))
        for batch in self._in_turns.values():
            if not batch.is_wanted:
                asyncio.get_running_loop().call_later(self._hung_s, self._give_up, batch)

    def _is_blocked(self, lane: Hashable, caller: Caller) -> bool:
        """Whether a slice of another lane has had the device for half of a caller's time or longer."""
        half = caller.deadline - caller.timeout_s / 2
        return any(other != lane and since <= half for other, since in self._device.turns.items())

    def _give_up(self, batch: Callers) -> None:
        """Give the device to the other lanes if a slice that no caller wants any more is still computed: it hangs."""
        if batch in self._in_turns.values():
            batch.give_up()

    def _take(self, lane: Hashable, queue: deque[Caller]) -> tuple[Forward, list[Caller]] | None:
        """Take the lane's network and the next callers, as many as fit in a batch; drop those that are done.

        If there is no network, the callers get the error. Returns None if there is nothing to compute.
        """
        try:
            forward = self._forward(lane)
        except Exception as err:  # noqa: BLE001 - the edge, as in _compute_now
            fail(first(queue, self._max_batch), err)
            return None
        pace = forward.pace
        callers = first(queue, min(self._max_batch, max(pace.at_once, forward.brief)))
        if len(callers) > 1 and isinstance(pace, RaggedPace):
            fitting = pace.first_of(caller.samples.size for caller in callers)
            queue.extendleft(reversed(callers[fitting:]))
            callers = callers[:fitting]
        return (forward, callers) if callers else None

    def _compute_now(self, lane: Hashable, queue: deque[Caller]) -> bool:
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
            values = forward.now(together(callers))
            self._answer(callers, forward.version, values, self._now() - started)
        except Exception as err:  # noqa: BLE001 - the three edges where any exception is caught: batch, job, rollout
            fail_or_retry(queue, callers, err)
        self._end(lane)
        return True

    async def _compute_in_turns(self, lane: Hashable, queue: deque[Caller]) -> None:
        """Compute the next batch in slices, one in each turn on the device. An exception fails this batch and no
        other.
        """
        batch: Callers | None = None
        callers: list[Caller] = []
        try:
            while batch is None or batch.left:
                async with self._device.turn(lane):
                    if batch is None:
                        if (taken := self._take(lane, queue)) is None:
                            return
                        forward, callers = taken
                        self._begin(lane, callers)
                        batch = self._in_turns[lane] = Callers.of(callers, forward)
                    if batch.left:  # as before it waited for this turn
                        await batch.compute_slice(self._now)
            self._answer(callers, batch.forward.version, batch.values, batch.forward_s)
        except Exception as err:  # noqa: BLE001 - the edge, as in _compute_now
            fail_or_retry(queue, callers, err)
        finally:
            self._in_turns.pop(lane, None)
            self._end(lane)

    def _begin(self, lane: Hashable, callers: list[Caller]) -> None:
        self._batches[lane] = callers
        self._computing += len(callers)

    def _end(self, lane: Hashable) -> None:
        self._computing -= len(self._batches.pop(lane, ()))

    def _answer(self, callers: list[Caller], version: int, values: Batch, forward_s: float) -> None:
        """Give each caller its rows. `forward_s`: seconds of computing, without those between slices."""
        finite = all_finite(values)
        finished, together = self._now(), len(values)
        row = 0
        for caller in callers:
            rows = values[row : row + len(caller.samples)]
            row += len(caller.samples)
            if not caller.receiver.done():
                queue_s = finished - caller.arrived - forward_s
                caller.receiver.set_result(Answer(version, rows, finite, queue_s, forward_s, together))
