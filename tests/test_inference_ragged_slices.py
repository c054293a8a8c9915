"""Samples of very unequal length: slices are cut by elements, and each caller gets its own answers. Virtual seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from models.padding import buckets, stacked
from models.samples import Batch, Columns
from models.signature import Padded
from models.spec import Array
from service.inference.batcher import Batcher
from service.inference.pace import BRIEF_S, SLICE_S, Pace, RaggedPace, measured
from tests import clock

PADDING = {"steps": Padded(lengths="lengths")}
ELEMENT_S = 2.0**-17
RATE = int(SLICE_S / ELEMENT_S)  # elements of a slice: 2,621


def series(lengths: Sequence[int]) -> Columns:
    """Samples of these lengths; each begins with its length, which is its answer."""
    return Columns.stacked({"steps": [np.r_[length, np.zeros(length - 1)].astype(np.float32) for length in lengths]})


def padded(samples: Columns) -> int:
    return sum(stacked(samples.take(bucket), PADDING)["steps"].size for bucket in buckets(samples, PADDING))


@dataclass
class Device:
    """A network of the lane, which takes ELEMENT_S for each padded element. It is its own Forward."""

    pace: Pace
    named: bool = False
    version: int = 1
    brief: int = 0
    slices: list[tuple[int, float]] = field(default_factory=list)  # samples and seconds of each

    def now(self, _: Any) -> Any:
        raise AssertionError("no ragged batch is brief")

    def leave_thread(self) -> None:
        raise AssertionError("no slice hangs")

    async def later(self, samples: Any) -> Batch:
        seconds = padded(samples) * ELEMENT_S
        self.slices.append((len(samples), seconds))
        await asyncio.sleep(seconds)
        steps = samples.arrays["steps"]
        first: Array = np.array([[row[0]] for row in steps])
        return Columns({"first": first, "steps": steps}) if self.named else first


def known() -> RaggedPace:
    pace = RaggedPace(PADDING)
    pace.learn(1000, 1000 * ELEMENT_S)
    return pace


def run(device: Device, test: Callable[[Batcher], Awaitable[Any]], max_batch: int = 64) -> None:
    async def main() -> None:
        async with asyncio.timeout(10_000):
            batcher = Batcher(lambda _: device, max_batch=max_batch, now=clock.now)
            await test(batcher)
            await batcher.drain()

    clock.run(main())


LENGTHS = {
    "random": np.random.default_rng(0).integers(1, 1500, 60).tolist(),
    "a few long ones": [5] * 20 + [1500] * 3 + [3] * 40,
    "long and short by turns": [1, 1000] * 30,
    "of equal length": [700] * 20,
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("named", [False, True], ids=["one array", "named outputs"])
def test_no_slice_of_a_long_batch_is_longer_than_the_target(lengths: list[int], named: bool) -> None:
    device = Device(known(), named)

    async def go(batcher: Batcher) -> None:
        answer = await batcher.submit("series", series(lengths), 1000)
        found = answer.values.arrays if named else {"first": answer.values}
        assert found["first"][:, 0].tolist() == lengths
        assert not named or [len(row) for row in found["steps"]] == lengths

    run(device, go)
    assert max(seconds for _, seconds in device.slices) <= SLICE_S * 1.0001
    assert sum(count for count, _ in device.slices) == len(lengths)
    assert len(device.slices) <= 2 * sum(seconds for _, seconds in device.slices) / SLICE_S + 1  # and none is tiny


def test_a_sample_that_is_longer_than_a_slice_is_computed_alone() -> None:
    device = Device(known())

    async def go(batcher: Batcher) -> None:
        answer = await batcher.submit("series", series([2, 3 * RATE, 2]), 1000)
        assert answer.values[:, 0].tolist() == [2, 3 * RATE, 2]

    run(device, go)
    assert [count for count, _ in device.slices] == [1, 2]
    assert device.pace.at_once == pytest.approx(RATE)  # although the others would be padded in its company


def test_callers_share_a_batch_of_about_a_slice() -> None:
    device = Device(known())
    lengths = [RATE // 2, RATE // 2, RATE, 1, 2, 3]

    async def go(batcher: Batcher) -> None:
        asked = [batcher.submit("series", series([length]), 1000) for length in lengths]
        assert [answer.values.item() for answer in await asyncio.gather(*asked)] == lengths

    run(device, go)
    assert [count for count, _ in device.slices] == [2, 1, 3]


def test_another_lane_waits_for_one_slice_whatever_the_lengths() -> None:
    device = Device(known())

    async def go(batcher: Batcher) -> None:
        long = asyncio.create_task(batcher.submit("long", series([1000] * 40), 1000))
        await asyncio.sleep(SLICE_S / 2)
        began = clock.now()
        await batcher.submit("short", series([1]), 1000)
        assert clock.now() - began <= SLICE_S
        assert not long.done()
        await long

    run(device, go)


def test_a_pace_that_learned_short_samples_keeps_slices_of_long_ones_short() -> None:
    device = Device(RaggedPace(PADDING))

    async def go(batcher: Batcher) -> None:
        for _ in range(20):
            await batcher.submit("series", series([3] * 60), 1000)
        device.slices.clear()
        await batcher.submit("series", series([1500] * 20), 1000)

    run(device, go)
    assert max(seconds for _, seconds in device.slices) <= SLICE_S * 1.0001


def test_the_pace_at_load_is_that_of_an_element() -> None:
    at = 0.0

    def compute(samples: Any) -> None:
        nonlocal at
        at += padded(samples) * ELEMENT_S

    brief, pace = measured(compute, series([5, 50]), 64, lambda: at, PADDING)
    assert isinstance(pace, RaggedPace)
    assert brief >= 4
    assert pace.at_once == pytest.approx(RATE, rel=0.01)
    assert isinstance(measured(lambda _: None, np.zeros((1, 3)), 64)[1], Pace)
    assert BRIEF_S > ELEMENT_S


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_elements_of_a_slice_are_those_that_are_computed(lengths: list[int]) -> None:
    pace = known()
    samples = series(lengths).take(pace.order(series(lengths)))
    start = 0
    while start < len(samples):
        count, elements = pace.cut(samples, start)
        assert elements == padded(samples[start : start + count])
        assert count == 1 or elements <= RATE
        start += count
        assert start == len(samples) or padded(samples[start - count : start + 1]) > RATE
    assert pace.cost(series(lengths)) == padded(series(lengths))


def test_arrays_of_one_shape_and_unpadded_ones_count_too() -> None:
    pace = RaggedPace({})
    samples = Columns({"steps": [np.zeros(0), np.zeros((2, 3))], "age": np.zeros(2)})
    assert pace.cost(samples) == 1 + 7
    assert pace.cost(Columns({"steps": np.zeros((2, 0))})) == 1  # and nothing is divided by zero
