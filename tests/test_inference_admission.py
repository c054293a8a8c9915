"""How many may wait, and for how long once there were too many. Time is an argument."""

from contextlib import suppress

import pytest

from service.errors import QueueFull
from service.inference.admission import Admission


class Queue:
    """Remembers how it was cut."""

    def __init__(self) -> None:
        self.computing = 0
        self.cuts: list[int] = []

    def cut(self, keep: int) -> None:
        self.cuts.append(keep)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def enter(admission: Admission, count: int) -> int:
    """How many of `count` are let in."""
    let_in = 0
    for _ in range(count):
        with suppress(QueueFull):
            admission.__enter__()
            let_in += 1
    return let_in


def leave(admission: Admission, count: int, kind: type[Exception] | None = None) -> None:
    for _ in range(count):
        admission.__exit__(kind, None, None)


@pytest.fixture
def queue() -> Queue:
    return Queue()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(queue: Queue, clock: Clock) -> Admission:
    return Admission(queue, 1000, clock)


def flood(admission: Admission, clock: Clock, a_second: int, seconds: float) -> None:
    """Many more come than the `a_second` that are answered."""
    enter(admission, 2000)
    for _ in range(round(seconds * 1000)):
        clock.now += 0.001
        leave(admission, a_second // 1000)
        enter(admission, 100)


def test_as_many_requests_as_the_limit_are_admitted_at_once(admission: Admission, queue: Queue) -> None:
    assert enter(admission, 1000) == 1000
    assert admission.waiting == 1000
    assert queue.cuts == []


def test_requests_in_the_current_batch_do_not_count_as_waiting(admission: Admission, queue: Queue) -> None:
    assert enter(admission, 1000) == 1000
    queue.computing = 64
    assert enter(admission, 1000) == 64


def test_a_full_queue_refuses_at_once_and_is_cut(admission: Admission, queue: Queue) -> None:
    assert enter(admission, 1100) == 1000
    assert queue.cuts == [8]


def test_a_refusal_says_when_to_come_again(queue: Queue, clock: Clock) -> None:
    admission = Admission(queue, 1, clock)
    enter(admission, 1)
    with pytest.raises(QueueFull) as refused:
        admission.__enter__()
    assert refused.value.headers == {"Retry-After": "1"}


def test_a_short_queue_is_never_cut_below_its_limit(queue: Queue, clock: Clock) -> None:
    assert enter(Admission(queue, 2, clock), 5) == 2
    assert set(queue.cuts) == {2}


def test_overload_limits_the_queue_to_5_ms_of_requests(admission: Admission, clock: Clock) -> None:
    enter(admission, 1001)
    leave(admission, 992, QueueFull)  # those that the cut refused
    flood(admission, clock, 6000, 1)
    assert admission.waiting == pytest.approx(0.005 * 6000, rel=0.2)
    flood(admission, clock, 3000, 1)
    leave(admission, admission.waiting - 8)
    assert enter(admission, 2000) == pytest.approx(0.005 * 3000 - 8, abs=2)


def test_a_flood_never_closes_the_door(admission: Admission, clock: Clock) -> None:
    enter(admission, 1001)
    leave(admission, 1000, QueueFull)
    flood(admission, clock, 0, 1)  # nobody is answered
    assert admission.waiting == 8


def test_a_second_after_the_last_refusal_all_is_as_before(admission: Admission, queue: Queue, clock: Clock) -> None:
    enter(admission, 1001)
    leave(admission, 1000)
    clock.now += 0.9
    assert enter(admission, 1000) < 1000
    leave(admission, admission.waiting)
    clock.now += 1.1
    assert enter(admission, 1000) == 1000
    assert queue.cuts == [8]


def retry(admission: Admission, clock: Clock, callers: int, seconds: float) -> int:
    """Each caller who is not waiting asks every 10 ms; half of those that wait are answered. Returns the last refusals.

    As the server does, it names the connections that are refused.
    """
    refused = 0
    for _ in range(round(seconds * 100)):
        clock.now += 0.01
        leave(admission, admission.waiting // 2)
        refused = 0
        for caller in range(admission.waiting, callers):
            if admission.full():
                admission.refused.add(caller)
                refused += 1
            else:
                admission.enter()
    return refused


def test_callers_who_retry_at_once_end_the_overload_if_all_of_them_may_wait(queue: Queue, clock: Clock) -> None:
    admission = Admission(queue, 100, clock)
    enter(admission, 101)
    leave(admission, 92, QueueFull)
    assert retry(admission, clock, 64, 0.9) > 0
    assert retry(admission, clock, 64, 0.2) == 0
    assert queue.cuts == [8]


def test_more_callers_than_may_wait_keep_up_the_overload(queue: Queue, clock: Clock) -> None:
    admission = Admission(queue, 100, clock)
    enter(admission, 101)
    leave(admission, 92, QueueFull)
    assert retry(admission, clock, 200, 3.5) > 100
    assert queue.cuts == [8]


def test_refused_requests_of_unknown_connections_count_as_one_connection_each(queue: Queue, clock: Clock) -> None:
    admission = Admission(queue, 100, clock)
    enter(admission, 101)
    leave(admission, 92, QueueFull)
    for _ in range(150):
        clock.now += 0.01
        enter(admission, 101)
        leave(admission, admission.waiting // 2)
    assert enter(admission, 100) < 100
    assert queue.cuts == [8]


def test_a_failed_request_leaves_the_queue(admission: Admission) -> None:
    with pytest.raises(RuntimeError), admission:
        raise RuntimeError
    assert admission.waiting == 0
