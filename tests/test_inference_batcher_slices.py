"""Long batches are cut into slices, and lanes share the device by time. All in virtual seconds."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import numpy as np
import pytest

from models.spec import Array
from service.errors import DeadlineExceeded, NothingLive
from service.inference.batcher import Batcher
from service.inference.callers import Answer
from tests import clock
from tests.lanes import Fake, Steady


class Device:
    """Fake device: doubles samples, takes `seconds` of the lane for each, and records its slices."""

    def __init__(self) -> None:
        self.slices: list[tuple[Hashable, list[float]]] = []
        self.times: list[float] = []  # when each slice began
        self.seconds: dict[Hashable, float] = {}
        self.at_once = 2
        self.brief: dict[Hashable, int] = {}
        self.version = 1
        self.fails_at = -1.0
        self.forwards: list[Fake] = []

    def take(self, lane: Hashable) -> Fake:
        pace = Steady(self.at_once)
        brief = self.brief.get(lane, 0)
        self.forwards.append(Fake(lane, self.compute, self.version, brief, pace, lambda samples: samples * 2))
        return self.forwards[-1]

    async def compute(self, lane: Hashable, samples: Array) -> Array:
        self.slices.append((lane, samples[:, 0].tolist()))
        self.times.append(clock.now())
        if self.fails_at in samples:
            raise RuntimeError("out of memory")
        await asyncio.sleep(self.seconds.get(lane, 1) * len(samples))
        return samples * 2


def rows(count: int, first: int = 0) -> Array:
    return np.arange(first, first + count, dtype=np.float32)[:, None]


def run(test: Callable[[Device, Batcher], Awaitable[Any]]) -> None:
    async def main() -> None:
        device = Device()
        async with asyncio.timeout(10_000):
            batcher = Batcher(device.take, max_batch=64, now=clock.now)
            await test(device, batcher)
            await batcher.drain()
            assert (batcher.waiting, batcher.computing) == (0, 0)

    clock.run(main())


def test_a_caller_that_was_cut_gets_one_answer_from_the_version_that_began_it() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        task = asyncio.create_task(batcher.submit("slow", rows(5), 100))
        await asyncio.sleep(0.5)
        device.version = 2
        answer = await task
        assert answer.values[:, 0].tolist() == [0, 2, 4, 6, 8]
        assert answer.version == 1
        assert [slice_ for _, slice_ in device.slices] == [[0, 1], [2, 3], [4]]
        assert (await batcher.submit("slow", rows(1), 100)).version == 2

    run(go)


def test_another_lane_waits_for_one_slice_and_not_for_the_batch() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.seconds = {"slow": 0.01, "quick": 0.001}
        long = asyncio.create_task(batcher.submit("slow", rows(60), 100))
        await asyncio.sleep(0.005)
        began = clock.now()
        await batcher.submit("quick", rows(1), 100)
        assert clock.now() - began == pytest.approx(0.02 - 0.005 + 0.001)
        assert not long.done()
        await long

    run(go)


def test_a_brief_batch_does_not_wait_for_the_device_at_all() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.brief = {"brief": 3}
        long = asyncio.create_task(batcher.submit("slow", rows(2), 100))
        await asyncio.sleep(0.5)
        answer = await batcher.submit("brief", rows(3), 100)
        assert answer.values[:, 0].tolist() == [0, 2, 4]
        assert clock.now() == 0.5
        more = asyncio.create_task(batcher.submit("brief", rows(4), 100))  # more than are brief: it takes its turn
        await long
        assert clock.now() == 2
        assert not more.done()
        await more

    run(go)


def test_a_brief_network_that_fails_fails_its_batch_only() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.brief = {"brief": 3}
        with pytest.raises(TypeError):
            await batcher.submit("brief", np.array([["no number"]], dtype=object), 100)
        assert (await batcher.submit("brief", rows(1), 100)).values.tolist() == [[0]]

    run(go)


def test_lanes_share_the_device_by_time_and_not_by_count() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.seconds, device.at_once = {"slow": 3.0, "quick": 1.0}, 1
        asked = [asyncio.create_task(batcher.submit(lane, rows(40), 1000)) for lane in ("slow", "quick")]
        await asked[1]
        done = [lane for lane, _ in device.slices]
        assert done.count("quick") == 40
        assert 13 <= done.count("slow") <= 15  # a third of the turns, as each is three times as long
        await asked[0]

    run(go)


def test_a_lane_that_was_idle_has_no_credit_for_it() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.at_once = 1
        long = asyncio.create_task(batcher.submit("old", rows(60), 1000))
        await asyncio.sleep(30.5)
        await batcher.submit("new", rows(10), 1000)
        since = [lane for lane, _ in device.slices[31:]]
        assert since[: 2 * 10 - 1] == ["new", "old"] * 9 + ["new"]
        await long

    run(go)


def test_a_lane_that_comes_back_between_its_requests_keeps_its_account() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.seconds, device.at_once = {"heavy": 4.0, "light": 1.0}, 1
        long = asyncio.create_task(batcher.submit("light", rows(40), 1000))
        for _ in range(5):
            await batcher.submit("heavy", rows(1), 1000)
        done = [lane for lane, _ in device.slices]
        assert done.count("heavy") == 5
        assert done.count("light") >= 4 * 4
        await long

    run(go)


def test_many_callers_of_a_slow_network_are_answered_slice_by_slice() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        answered: list[float] = []

        async def ask(number: int) -> None:
            await batcher.submit("slow", rows(1, number), 100)
            answered.append(clock.now())

        await asyncio.gather(*(ask(number) for number in range(6)))
        assert [slice_ for _, slice_ in device.slices] == [[0, 1], [2, 3], [4, 5]]
        assert answered == [2, 2, 4, 4, 6, 6]

    run(go)


def test_a_caller_that_goes_away_drops_the_rest_of_its_slices() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        gone = asyncio.create_task(batcher.submit("slow", rows(60), 100))
        await asyncio.sleep(2.5)
        other = asyncio.create_task(batcher.submit("other", rows(1), 100))
        gone.cancel()
        await other
        await batcher.drain()
        assert device.slices == [("slow", [0, 1]), ("slow", [2, 3]), ("other", [0])]

    run(go)


def test_a_caller_that_goes_away_while_another_lane_computes_gets_no_more_slices() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        gone = asyncio.create_task(batcher.submit("slow", rows(60), 100))
        await asyncio.sleep(1.5)
        other = asyncio.create_task(batcher.submit("other", rows(2), 100))
        await asyncio.sleep(1)
        gone.cancel()
        await other
        await batcher.drain()
        assert device.slices == [("slow", [0, 1]), ("other", [0, 1])]

    run(go)


def test_a_deadline_between_slices_ends_the_rest() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        with pytest.raises(DeadlineExceeded, match="no answer within 3 s"):
            await batcher.submit("slow", rows(60), 3)
        assert clock.now() == 3
        await batcher.drain()
        assert len(device.slices) == 2

    run(go)


def test_an_error_in_a_later_slice_fails_its_caller_and_no_other() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.fails_at = 3
        failed, other = await asyncio.gather(
            batcher.submit("slow", rows(8), 100), batcher.submit("slow", rows(2, 10), 100), return_exceptions=True
        )
        assert isinstance(failed, RuntimeError)
        assert isinstance(other, Answer)
        assert other.values[:, 0].tolist() == [20, 22]
        assert [slice_ for _, slice_ in device.slices] == [[0, 1], [2, 3], [10, 11]]

    run(go)


def test_the_time_between_slices_counts_as_waiting() -> None:
    async def go(_: Device, batcher: Batcher) -> None:
        long = asyncio.create_task(batcher.submit("a", rows(4), 100))
        await batcher.submit("b", rows(2), 100)
        answer = await long
        assert (answer.queue_s, answer.forward_s) == (2, 4)

    run(go)


def test_a_lane_without_a_network_refuses_its_callers_and_lives_on() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        networks = [NothingLive("none yet"), None]

        def take(lane: Hashable) -> Fake:
            if networks[0] is not None:
                raise networks[0]
            return device.take(lane)

        batcher = Batcher(take, max_batch=64, now=clock.now)
        with pytest.raises(NothingLive):
            await batcher.submit("m", rows(2), 100)
        networks.pop(0)
        assert (await batcher.submit("m", rows(2), 100)).values.tolist() == [[0], [2]]

    run(go)


def test_callers_that_are_cut_off_while_they_wait_are_not_computed() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit("a", rows(2), 100))
        await asyncio.sleep(1)
        second = asyncio.create_task(batcher.submit("b", rows(2), 100))
        await asyncio.sleep(0)
        second.cancel()
        await first
        await batcher.drain()
        assert device.slices == [("a", [0, 1])]

    run(go)


def test_a_slice_that_hangs_is_given_up_once_nobody_wants_it() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.seconds = {"hangs": math.inf}
        batcher = Batcher(device.take, max_batch=64, now=clock.now, hung_s=20)
        calls = [batcher.submit("hangs", rows(2), timeout_s) for timeout_s in (3, 5)]
        hangs = asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(1)
        late, other = await asyncio.gather(
            batcher.submit("other", rows(2), 6), batcher.submit("other", rows(2), 100), return_exceptions=True
        )
        assert isinstance(late, DeadlineExceeded)
        assert isinstance(other, Answer)
        assert [device.times[1], sum(forward.left for forward in device.forwards)] == [23, 1]
        assert [type(err) for err in await hangs] == [DeadlineExceeded] * 2
        device.seconds = {}
        assert (await batcher.submit("hangs", rows(2), 10)).values[:, 0].tolist() == [0, 2]
        await batcher.drain()
        assert (batcher.waiting, batcher.computing) == (0, 0)

    run(go)


def test_the_end_waits_for_no_slice_that_nobody_wants() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.seconds = {"hangs": math.inf}
        for timeout_s, ended in ((3, 4), (5, 10)):
            hangs = asyncio.create_task(batcher.submit("hangs", rows(1), timeout_s))
            if timeout_s == 3:  # it is given up before the end begins, the other one after it
                await asyncio.wait([hangs])
            other = asyncio.create_task(batcher.submit("other", rows(1), 100))
            await asyncio.sleep(0)
            await batcher.drain()
            assert (clock.now(), other.done()) == (ended, True)
            assert isinstance(hangs.exception(), DeadlineExceeded)
        assert sum(forward.left for forward in device.forwards) == 2

    run(go)


def test_a_slice_that_somebody_wants_is_not_given_up() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.seconds = {"long": 15}
        batcher = Batcher(device.take, max_batch=64, now=clock.now, hung_s=1)
        _, early, patient = await asyncio.gather(
            batcher.submit("other", rows(1), 100),
            batcher.submit("long", rows(1), 3),
            batcher.submit("long", rows(1), 100),
            return_exceptions=True,
        )
        assert isinstance(early, DeadlineExceeded)
        assert isinstance(patient, Answer)
        assert device.slices == [("other", [0]), ("long", [0, 0])]
        assert (clock.now(), sum(forward.left for forward in device.forwards)) == (31, 0)

    run(go)


def test_a_caller_learns_whether_another_lane_kept_the_device() -> None:
    async def go(device: Device, batcher: Batcher) -> None:
        device.seconds = {"hangs": 50}

        async def late(lane: str, after_s: float, timeout_s: float) -> bool:
            await asyncio.sleep(after_s)
            with pytest.raises(DeadlineExceeded) as caught:
                await batcher.submit(lane, rows(1), timeout_s)
            return caught.value.is_blocked

        own = late("hangs", 0, 4), late("hangs", 1, 4)
        others = late("other", 0.5, 4), late("other", 1, 4)
        assert list(await asyncio.gather(*own, *others)) == [False, False, True, True]
        device.seconds = {"other": 3, "brief": 5}
        await batcher.drain()
        first = asyncio.create_task(batcher.submit("other", rows(1), 100))
        second = asyncio.create_task(batcher.submit("brief", rows(1), 100))
        assert not await late("third", 0, 5)  # of which others had 3 and 2 seconds
        await asyncio.gather(first, second)

    run(go)
