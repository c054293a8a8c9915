import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import numpy as np
import pytest

from models.spec import Array
from service.errors import DeadlineExceeded, QueueFull
from service.inference.batcher import Batcher
from tests import clock
from tests.lanes import Fake, Steady


class Device:
    """Fake device: computes 2x+1 on request and records its batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[Hashable, list[float]]] = []
        self.started = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    def take(self, lane: Hashable) -> Fake:
        return Fake(lane, self.compute)

    def in_slices_of(self, at_once: int) -> Callable[[Hashable], Fake]:
        return lambda lane: Fake(lane, self.compute, pace=Steady(at_once))

    async def compute(self, lane: Hashable, samples: Array) -> Array:
        self.batches.append((lane, samples[:, 0].tolist()))
        self.started.set()
        await asyncio.sleep(0)  # a real device takes a turn of the loop, too
        await self.free.wait()
        if (samples < 0).any():
            raise RuntimeError("negative")
        return samples * 2 + 1


def sample(*numbers: float) -> Array:
    return np.array(numbers, dtype=np.float32)[:, None]


def run(test: Callable[[Device], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(20):
            return await test(Device())

    return clock.run(main())


def test_every_caller_gets_its_own_rows() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=64)
        answers = await asyncio.gather(*(batcher.submit("m", sample(i, i + 0.5), 10) for i in range(50)))
        for i, answer in enumerate(answers):
            assert answer.version == 7
            assert answer.values[:, 0].tolist() == [2 * i + 1, 2 * i + 2]

    run(go)


def test_what_waits_while_the_device_is_busy_becomes_one_batch() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=3)
        device.free.clear()
        calls = [asyncio.create_task(batcher.submit("m", sample(0), 10))]
        await device.started.wait()
        calls += [asyncio.create_task(batcher.submit("m", sample(i), 10)) for i in (1, 2, 3, 4)]
        await asyncio.sleep(0)  # each caller runs up to its place in the queue
        assert batcher.waiting == 4
        device.free.set()
        await asyncio.gather(*calls)
        assert [rows for _, rows in device.batches] == [[0], [1, 2, 3], [4]]

    run(go)


def test_a_caller_with_more_than_a_batch_is_not_cut_if_the_network_is_fast() -> None:
    async def go(device: Device) -> None:
        answer = await Batcher(device.take, max_batch=2).submit("m", sample(1, 2, 3, 4, 5), 10)
        assert answer.values[:, 0].tolist() == [3, 5, 7, 9, 11]
        assert len(device.batches) == 1

    run(go)


def test_a_failure_fails_its_batch_only_and_the_lane_lives_on() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=1)
        results = await asyncio.gather(
            *(batcher.submit("m", sample(x), 10) for x in (1, -1, 2)),
            return_exceptions=True,
        )
        assert isinstance(results[1], RuntimeError)
        assert [r.values[0, 0] for r in (results[0], results[2])] == [3, 5]  # type: ignore[union-attr]
        assert (await batcher.submit("m", sample(4), 10)).values[0, 0] == 9

    run(go)


def test_of_a_batch_that_fails_only_the_callers_that_fail_alone_do() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=64)
        results = await asyncio.gather(
            *(batcher.submit("m", sample(x), 10) for x in (1, -1, 2)),
            return_exceptions=True,
        )
        assert isinstance(results[1], RuntimeError)
        assert [r.values[0, 0] for r in (results[0], results[2])] == [3, 5]  # type: ignore[union-attr]
        assert device.batches == [("m", [1, -1, 2]), ("m", [1]), ("m", [-1]), ("m", [2])]
        await asyncio.gather(*(batcher.submit("m", sample(x), 10) for x in (3, 4)))
        assert device.batches[-1] == ("m", [3, 4])

    run(go)


def test_a_cut_refuses_those_that_have_waited_longest_over_all_lanes() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=2)
        device.free.clear()
        calls = [asyncio.create_task(batcher.submit("m", sample(0), 10))]
        await device.started.wait()
        calls += [asyncio.create_task(batcher.submit(lane, sample(i), 10)) for i, lane in enumerate("mnmn", 1)]
        await asyncio.sleep(0)  # each caller runs up to its place in the queue
        assert (batcher.waiting, batcher.computing) == (4, 1)
        batcher.cut(2)
        device.free.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(result, QueueFull) for result in results] == [False, True, True, False, False]
        assert [result.values[0, 0] for result in (results[0], *results[3:])] == [1, 7, 9]  # type: ignore[union-attr]
        await batcher.drain()
        assert (batcher.waiting, batcher.computing) == (0, 0)

    run(go)


def test_a_late_answer_is_a_deadline_and_harms_no_neighbour() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=8)
        device.free.clear()
        first = asyncio.create_task(batcher.submit("m", sample(1), 10))
        await device.started.wait()
        with pytest.raises(DeadlineExceeded):
            await batcher.submit("m", sample(2), 0)
        device.free.set()
        assert (await first).values[0, 0] == 3
        await batcher.drain()
        assert [rows for _, rows in device.batches] == [[1]]

    run(go)


def test_each_request_has_its_own_deadline_in_the_queue_and_in_the_batch() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=8, now=clock.now)
        late: list[tuple[float, float]] = []  # timeout, and when it was over

        async def ask(row: float, timeout_s: float) -> None:
            with pytest.raises(DeadlineExceeded, match=f"within {timeout_s} s"):
                await batcher.submit("m", sample(row), timeout_s)
            late.append((timeout_s, clock.now()))

        device.free.clear()
        computed = asyncio.create_task(ask(1, 0.02))
        await device.started.wait()
        patient = asyncio.create_task(batcher.submit("m", sample(2), 10))
        await asyncio.gather(computed, ask(2, 0.03), ask(2, 0.01))
        assert late == [(0.01, 0.01), (0.02, 0.02), (0.03, 0.03)]
        device.free.set()
        assert (await patient).values[0, 0] == 5
        await batcher.drain()
        assert [rows for _, rows in device.batches] == [[1], [2]]

    run(go)


def test_a_caller_that_goes_away_drops_out_of_its_batch() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=8)
        device.free.clear()
        calls = [asyncio.create_task(batcher.submit("m", sample(i), 10)) for i in (1,)]
        await device.started.wait()
        calls += [asyncio.create_task(batcher.submit("m", sample(i), 10)) for i in (2, 3, 4)]
        await asyncio.sleep(0)  # each caller runs up to its place in the queue
        assert batcher.waiting == 3
        calls[2].cancel()
        await asyncio.gather(calls[2], return_exceptions=True)
        device.free.set()
        assert [(await call).values[0, 0] for call in (calls[0], calls[1], calls[3])] == [3, 5, 9]
        assert device.batches[1:] == [("m", [2, 4])]

    run(go)


def test_lanes_take_turns_and_never_mix() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=1, now=clock.now)
        lanes = ["a", "b", "a", "b", "a", "b"]
        await asyncio.gather(*(batcher.submit(lane, sample(i), 10) for i, lane in enumerate(lanes)))
        assert [lane for lane, _ in device.batches] == lanes

    run(go)


def test_an_incomplete_batch_waits_only_for_max_wait_s() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=2, max_wait_s=60, now=clock.now)
        await asyncio.gather(batcher.submit("m", sample(1), 10), batcher.submit("m", sample(2), 10))
        assert device.batches == [("m", [1, 2])]
        assert clock.now() == 0  # full: the 60 s are not waited for
        patient = Batcher(device.take, max_batch=2, max_wait_s=0.01, now=clock.now)
        assert (await patient.submit("m", sample(5), 10)).values[0, 0] == 11
        assert clock.now() == 0.01  # alone: it waits for max_wait_s

    run(go)


def test_drain_waits_for_every_answer() -> None:
    async def go(device: Device) -> None:
        batcher = Batcher(device.take, max_batch=1)
        calls = [asyncio.create_task(batcher.submit("m", sample(i), 10)) for i in range(5)]
        await asyncio.sleep(0)
        await batcher.drain()
        await asyncio.sleep(0)
        assert all(call.done() for call in calls)
        await asyncio.gather(*calls)

    run(go)


def test_a_lane_that_waits_for_its_network_holds_up_no_other_and_fails_as_a_whole() -> None:
    async def go(device: Device) -> None:
        loaded = asyncio.Event()

        async def hold(lane: Hashable) -> object:
            if lane == "cold":
                await loaded.wait()
                raise RuntimeError("broken")
            return lane

        batcher = Batcher(device.take, max_batch=1, hold=hold)
        cold = [asyncio.create_task(batcher.submit("cold", sample(x), 10)) for x in (1, 2)]
        assert (await batcher.submit("warm", sample(4), 10)).values[0, 0] == 9
        with pytest.raises(DeadlineExceeded):
            await batcher.submit("cold", sample(3), 0.001)
        loaded.set()
        assert [str(fault) for fault in await asyncio.gather(*cold, return_exceptions=True)] == ["broken"] * 2
        await batcher.drain()

    run(go)
