"""The lane of the shadow: when it computes, what it drops, and with which priority."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.delivery import shadow_lane
from service.delivery.shadow_lane import Lane, Pace
from tests.fakes import ROOT


def priority() -> int:
    """That of this thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@dataclass(eq=False)
class Noting:
    """Notes the copies of each batch."""

    batches: list[list[int]] = field(default_factory=list)
    priorities: list[tuple[int, int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    late: list[list[int]] = field(default_factory=list)

    def overdue(self, copies: "Sequence[Piece]") -> None:
        self.late.append([copy.size for copy in copies])

    def compute(self, copies: "Sequence[Piece]", low: Executor) -> None:
        self.gate.wait(60)
        self.batches.append([copy.size for copy in copies])
        self.priorities.append((priority(), low.submit(priority).result()))
        if self.error is not None:
            raise self.error

    @property
    def computed(self) -> int:
        return sum(map(sum, self.batches))


@dataclass(eq=False)
class Piece:
    """Samples of no content."""

    owner: Noting
    size: int = 1
    nbytes: int = 10


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def becomes(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread brings it about
        await asyncio.sleep(0.001)


def opened() -> Noting:
    owner = Noting()
    owner.gate.set()
    return owner


def test_nothing_is_computed_while_callers_wait() -> None:
    async def go() -> None:
        asked: list[int] = []
        owner = opened()

        def is_idle() -> bool:
            assert not owner.batches
            asked.append(1)
            return len(asked) == 20

        lane = Lane(is_idle)
        lane.offer(Piece(owner))
        await becomes(lambda: owner.batches == [[1]])
        assert len(asked) == 20
        lane.close()

    run(go)


def test_what_comes_while_a_batch_is_computed_waits_in_the_bounded_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        loop, owner = asyncio.get_running_loop(), Noting()
        delays: list[float] = []
        later = loop.call_later

        def noted(delay: float, *arguments: Any) -> asyncio.TimerHandle:
            if arguments[0] == lane._look:
                delays.append(delay)
            return later(delay, *arguments)

        lane = Lane(lambda: True, most_samples=3)
        monkeypatch.setattr(loop, "call_later", noted)
        lane.offer(Piece(owner))
        await becomes(lambda: lane.waiting == 0)  # it is being computed
        assert [lane.offer(Piece(owner)) for _ in range(4)] == [True, True, True, False]
        await becomes(lambda: delays.count(shadow_lane._AGAIN_S) >= 2)  # it has looked twice
        assert lane.waiting == 3
        owner.gate.set()
        await becomes(lambda: owner.batches == [[1], [1, 1, 1]])
        lane.close()

    run(go)


def rest_s(*idle: bool) -> float:
    """The rest after a batch of 10 ms, if callers were looked for every 10 ms, with these outcomes."""
    pace = Pace()
    for look, one in enumerate(idle):
        pace.looked(look * 0.01, idle=one)
    return pace.rest_s(0.01)


def test_the_lane_rests_the_longer_the_more_callers_are_there() -> None:
    assert rest_s() == rest_s(*[False] * 1_000) == pytest.approx(0.6)
    assert rest_s(*[False, True] * 500) == pytest.approx(0.3, rel=0.05)  # 3% of the time for batches
    assert rest_s(*[True] * 1_000) == shadow_lane._EVERY_S
    assert Pace().rest_s(1e-6) == shadow_lane._EVERY_S


def test_looks_in_quick_succession_count_once() -> None:
    pace, once = Pace(), Pace()
    once.looked(1.0, idle=True)
    for look in range(4):
        pace.looked(1.0 + look * shadow_lane._EVERY_S / 5, idle=look != 3)
    assert pace.rest_s(1.0) == once.rest_s(1.0) < Pace().rest_s(1.0)


def test_a_batch_is_followed_by_a_rest_that_ends_if_no_callers_come() -> None:
    async def go() -> None:
        looks = [0]
        seconds = [0.0]
        owner = opened()

        def is_idle() -> bool:
            looks[0] += 1
            return True

        def now() -> float:
            seconds[0] += 0.01
            return seconds[0]

        async def looks_for_a_batch() -> int:
            before, wanted = looks[0], len(owner.batches) + 1
            lane.offer(Piece(owner))
            await becomes(lambda: len(owner.batches) == wanted)
            return looks[0] - before

        lane = Lane(is_idle, now=now)
        assert await looks_for_a_batch() == 1
        assert await looks_for_a_batch() > 10  # as if callers were there, until it is known that they are not
        for _ in range(100):
            await looks_for_a_batch()
        assert await looks_for_a_batch() <= 2
        lane.close()

    run(go)


def test_a_closed_lane_looks_no_more() -> None:
    async def go() -> None:
        asked: list[int] = []
        owner, passed = opened(), asyncio.Event()

        def is_idle() -> bool:
            asked.append(1)
            return True

        lane = Lane(is_idle)
        assert lane.offer(Piece(owner))
        lane.close()
        assert lane.waiting == 0
        asyncio.get_running_loop().call_later(2 * shadow_lane._EVERY_S, passed.set)  # after the look that was due
        await passed.wait()
        assert (asked, owner.batches) == ([], [])
        assert lane.offer(Piece(owner, shadow_lane.MOST_SAMPLES))  # all of its room is free again
        lane.close()

    run(go)


def test_copies_of_an_owner_are_computed_together_up_to_a_small_batch() -> None:
    async def go() -> None:
        owner, other = opened(), opened()
        lane = Lane(lambda: True)
        for piece in (
            Piece(owner, 6),
            Piece(owner, 6),
            Piece(owner, 6),
            Piece(other, 1),
            Piece(owner, 40),
            Piece(owner, 7),
            Piece(owner, 9),
        ):
            assert lane.offer(piece)
        assert lane.waiting == 75
        await becomes(lambda: owner.computed + other.computed == 75)
        assert (owner.batches, other.batches) == ([[6, 6], [6], [40], [7, 9]], [[1]])
        assert lane.waiting == 0
        lane.close()

    run(go)


def test_the_newest_copies_are_dropped_if_the_queue_is_full() -> None:
    async def go() -> None:
        owner = Noting()
        lane = Lane(lambda: True, most_samples=10, most_bytes=100)
        assert [lane.offer(Piece(owner, 4, 0)) for _ in range(3)] == [True, True, False]
        assert lane.offer(Piece(owner, 2, 0))
        lane.discard(owner)
        assert lane.offer(Piece(owner, 1, 60))
        lane.discard(owner)  # its bytes are free again, too
        assert [lane.offer(Piece(owner, 1, 60)) for _ in range(2)] == [True, False]
        assert lane.waiting == 1
        owner.gate.set()
        await becomes(lambda: owner.batches == [[1]])
        assert lane.offer(Piece(owner, 10, 100))
        await becomes(lambda: owner.batches == [[1], [10]])
        lane.close()

    run(go)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_networks_have_a_lower_priority_than_what_serves() -> None:
    async def go() -> None:
        owner = opened()
        own = priority()
        lane = Lane(lambda: True)
        lane.offer(Piece(owner))
        await becomes(lambda: bool(owner.priorities))
        assert owner.priorities == [(own, min(19, own + 10))]
        assert priority() == own
        lane.close()

    run(go)


def test_an_error_of_an_owner_leaves_the_lane_running(caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        broken, owner = opened(), opened()
        broken.error = ValueError("broken")
        lane = Lane(lambda: True)
        lane.offer(Piece(broken))
        lane.offer(Piece(owner))
        await becomes(lambda: owner.batches == [[1]])
        lane.close()

    run(go)
    assert "shadow work failed" in caplog.text


def test_the_copies_of_a_trial_that_ends_are_dropped_and_its_thread_with_the_last() -> None:
    async def go() -> None:
        ended, other = Noting(), opened()
        lane = Lane(lambda: True)
        lane.offer(Piece(ended, 20))
        await becomes(lambda: lane.waiting == 0)  # it is being computed
        lane.offer(Piece(ended, 20))
        lane.offer(Piece(other))
        lane.discard(ended)
        assert lane.waiting == 1
        ended.gate.set()
        await becomes(lambda: other.batches == [[1]])
        assert ended.batches == [[20]]
        lane.rest()
        await becomes(lambda: not any(thread.name.startswith("shadow") for thread in threading.enumerate()))
        lane.offer(Piece(other))  # a new one is started
        await becomes(lambda: other.batches == [[1], [1]])
        lane.offer(Piece(other))
        lane.close()
        assert lane.waiting == 0

    run(go)


def test_a_batch_that_hangs_and_those_behind_it_are_given_up_and_others_go_on_once_its_owner_is_gone() -> None:
    async def go() -> None:
        hanging, other = Noting(), opened()
        lane = Lane(lambda: True, late_s=0.05)
        lane.offer(Piece(hanging, 3))
        await becomes(lambda: lane.waiting == 0)  # it is being computed
        lane.offer(Piece(hanging, 2))
        lane.offer(Piece(other))
        await becomes(lambda: bool(hanging.late))
        assert (hanging.late, lane.waiting) == ([[3, 2]], 1)
        lane.offer(Piece(hanging, 4))
        await becomes(lambda: len(hanging.late) == 2)
        lane.offer(Piece(hanging, 5))
        await becomes(lambda: len(hanging.late) == 3)
        assert (hanging.late[1:], other.batches) == ([[4], [5]], [])
        lane.offer(Piece(hanging, 6))
        await becomes(lambda: len(hanging.late) == 4)
        assert other.batches == []  # one network hangs at most
        lane.late_s = 6000.0  # not the next look, but the end of the trial makes way
        lane.discard(hanging)
        await becomes(lambda: other.batches == [[1]])
        assert hanging.batches == []
        hanging.gate.set()
        await becomes(lambda: hanging.batches == [[3]])
        lane.close()

    run(go)


def test_a_batch_that_hangs_after_its_trial_has_ended_holds_up_no_other_trial() -> None:
    async def go() -> None:
        ended, other = Noting(), opened()
        lane = Lane(lambda: True, late_s=0.05)
        lane.offer(Piece(ended))
        await becomes(lambda: lane.waiting == 0)
        lane.discard(ended)
        lane.offer(Piece(other))
        await becomes(lambda: other.batches == [[1]])
        assert ended.late == [[1]]
        ended.gate.set()
        lane.close()

    run(go)


HANGING = """
import asyncio, threading
from service.delivery.shadow_lane import Lane

begun = threading.Event()

class Hanging:
    size = nbytes = 1
    def compute(self, copies, low):
        low.submit(self.hang).result()
    def hang(self):
        begun.set()
        threading.Event().wait()

async def go():
    lane, copy = Lane(lambda: True), Hanging()
    copy.owner = copy
    lane.offer(copy)
    await asyncio.to_thread(begun.wait)
    lane.close()

asyncio.run(go())
print("stopped")
"""


def test_a_network_that_hangs_does_not_keep_the_process_from_stopping() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"stopped\n"
