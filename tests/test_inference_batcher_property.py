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
)
def test_every_caller_gets_its_own_rows_or_its_own_error(
    calls: list[Call],
    durations: list[int],
    failing: set[int],
    cuts: dict[int, int],
) -> None:
    asyncio.run(asyncio.wait_for(_go(calls, durations, failing, cuts), 60))


async def _go(calls: list[Call], durations: list[int], failing: set[int], cuts: dict[int, int]) -> None:
    batches: list[int] = []
    busy = False

    async def compute(lane: Hashable, samples: Array) -> tuple[int, Array]:
        nonlocal busy
        assert not busy, "two batches at a time"
        busy = True
        number = len(batches)
        batches.append(len(samples))
        await turns(durations[number % len(durations)])
        busy = False
        if number in failing:
            raise OutOfMemoryError
        return number, samples * LANES[str(lane)]

    batcher = Batcher(compute, max_batch=MAX_BATCH)

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
        assert answer.values.tolist() == (samples * LANES[call.lane]).tolist()
        assert answer.version not in failing
        assert batches[answer.version] <= max(MAX_BATCH, call.rows)

    async with asyncio.TaskGroup() as group:
        for number, call in enumerate(calls):
            group.create_task(ask(number, call))
        for after, keep in cuts.items():
            group.create_task(cut(batcher, after, keep))
    await batcher.drain()
    assert batcher.waiting == 0
    assert not busy


@settings(deadline=None, max_examples=50)
@given(flood=st.integers(1, 40), turn=st.integers(0, 3))
def test_a_flood_on_one_model_holds_another_up_by_one_batch_at_most(flood: int, turn: int) -> None:
    order: list[str] = []

    async def compute(lane: Hashable, samples: Array) -> tuple[int, Array]:
        order.append(str(lane))
        await turns(turn + 1)
        return 1, samples

    async def go() -> None:
        batcher = Batcher(compute, max_batch=1)
        sample = np.zeros((1, 1))
        async with asyncio.TaskGroup() as group:
            for _ in range(flood):
                group.create_task(batcher.submit("flooded", sample, 60))
            await turns(turn)
            before = len(order)
            await group.create_task(batcher.submit("quiet", sample, 60))
            assert order.index("quiet") <= before + 2

    asyncio.run(asyncio.wait_for(go(), 60))
