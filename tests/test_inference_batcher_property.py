"""Property test: with any arrivals, failures, timeouts and cancellations, each caller gets its own rows or error."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import Array
from service.errors import DeadlineExceeded, QueueFull
from service.inference.batcher import Batcher
from tests.lanes import Fake, Steady

MAX_BATCH = 5
LANES = {"a": 1.0, "b": -1.0}  # what each lane's network multiplies by


class OutOfMemoryError(Exception):
    """Error that fails a batch in this test."""


@dataclass(frozen=True)
class Call:
    """`after` turns of the event loop a caller arrives; it leaves `patience` turns later, or stays (None)."""

    lane: str
    rows: int
    after: int
    patience: int | None
    hopeless: bool  # its deadline is over when it arrives


CALLS = st.builds(
    Call,
    lane=st.sampled_from(sorted(LANES)),
    rows=st.integers(1, MAX_BATCH + 3),
    after=st.integers(0, 30),
    patience=st.none() | st.integers(0, 6),
    hopeless=st.booleans(),
)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cut(batcher: Batcher, after: int, keep: int) -> None:
    await turns(after)
    batcher.cut(keep)


@settings(deadline=None, max_examples=200)
@given(
    calls=st.lists(CALLS, min_size=1, max_size=25),
    durations=st.lists(st.integers(0, 5), min_size=1),
    failing=st.sets(st.integers(0, 20)),
    cuts=st.dictionaries(st.integers(0, 40), st.integers(0, 6), max_size=2),
    at_once=st.integers(1, MAX_BATCH + 2),
    brief=st.integers(0, 3),
)
def test_every_caller_gets_its_own_rows_or_its_own_error(
    calls: list[Call],
    durations: list[int],
    failing: set[int],
    cuts: dict[int, int],
    at_once: int,
    brief: int,
) -> None:
    device = Device(durations, failing, at_once, brief)
    asyncio.run(asyncio.wait_for(_go(device, calls, cuts), 60))


class Device:
    """Computes one slice at a time, and brief batches at any time. A new version goes live at each batch.

    Values are (lane's factor * sample, version).
    """

    def __init__(self, durations: list[int], failing: set[int], at_once: int, brief: int) -> None:
        self.busy = False
        self.slices: list[int] = []
        self._durations, self._failing = durations, failing
        self._at_once, self._brief = at_once, brief
        self._version = 0

    def take(self, lane: Hashable) -> Fake:
        self._version += 1
        version = self._version

        async def later(_: Hashable, samples: Array) -> Array:
            assert not self.busy, "two slices at a time"
            self.busy = True
            number = len(self.slices)
            self.slices.append(len(samples))
            assert len(samples) <= self._at_once
            await turns(self._durations[number % len(self._durations)])
            self.busy = False
            return self._values(number, lane, samples, version)

        def now(samples: Array) -> Array:
            self.slices.append(len(samples))
            assert len(samples) <= self._brief
            return self._values(len(self.slices) - 1, lane, samples, version)

        return Fake(lane, later, version, self._brief, Steady(self._at_once), now)

    def _values(self, number: int, lane: Hashable, samples: Array, version: int) -> Array:
        if number in self._failing:
            raise OutOfMemoryError
        return np.hstack([samples * LANES[str(lane)], np.full_like(samples, version)])


async def _go(device: Device, calls: list[Call], cuts: dict[int, int]) -> None:
    batcher = Batcher(device.take, max_batch=MAX_BATCH)

    async def ask(number: int, call: Call) -> None:
        await turns(call.after)
        samples = np.arange(call.rows)[:, None] + 1000.0 * (number + 1)  # nobody else's
        task = asyncio.create_task(batcher.submit(call.lane, samples, 0 if call.hopeless else 60))
        if call.patience is not None:
            await turns(call.patience)
            task.cancel()
        try:
            answer = await task
        except (OutOfMemoryError, QueueFull):
            return
        except DeadlineExceeded:
            assert call.hopeless
            return
        except asyncio.CancelledError:
            assert call.patience is not None
            return
        assert answer.values[:, :1].tolist() == (samples * LANES[call.lane]).tolist()
        assert set(answer.values[:, 1]) == {answer.version}

    async with asyncio.TaskGroup() as group:
        for number, call in enumerate(calls):
            group.create_task(ask(number, call))
        for after, keep in cuts.items():
            group.create_task(cut(batcher, after, keep))
    await batcher.drain()
    assert batcher.waiting == batcher.computing == 0
    assert not device.busy


@settings(deadline=None, max_examples=50)
@given(flood=st.integers(1, 40), turn=st.integers(0, 3))
def test_a_flood_on_one_model_holds_another_up_by_one_batch_at_most(flood: int, turn: int) -> None:
    order: list[str] = []

    async def compute(lane: Hashable, samples: Array) -> Array:
        order.append(str(lane))
        await turns(turn + 1)
        return samples

    async def go() -> None:
        batcher = Batcher(lambda lane: Fake(lane, compute), max_batch=1)
        sample = np.zeros((1, 1))
        async with asyncio.TaskGroup() as group:
            for _ in range(flood):
                group.create_task(batcher.submit("flooded", sample, 60))
            await turns(turn)
            before = len(order)
            await group.create_task(batcher.submit("quiet", sample, 60))
            assert order.index("quiet") <= before + 2

    asyncio.run(asyncio.wait_for(go(), 60))
