"""Requests that are drawn for capture, and the queue in which they wait."""

import numpy as np
import pytest

from models.samples import Columns
from service.data.sampled import MOST_SAMPLES, Sampler, Waiting, is_drawn, is_key, sampled
from tests.captured import prediction, served, stem


class Counted:
    def __init__(self) -> None:
        self.found: dict[str, int] = {}

    def __call__(self, model: str, outcome: str, samples: int) -> None:
        assert model == "line"
        self.found[outcome] = self.found.get(outcome, 0) + samples


def sampler(waiting: Waiting, rate: float = 1.0) -> tuple[Sampler, Counted]:
    counted = Counted()
    found = Sampler(waiting, counted)
    found.rate = rate
    return found, counted


def test_the_share_of_drawn_requests_is_the_rate() -> None:
    drawn = sum(is_drawn(stem(number), 0.05) for number in range(20_000))
    assert 900 < drawn < 1100  # a standard deviation is 31
    assert all(is_drawn(stem(number), 1.0) for number in range(100))
    assert not any(is_drawn(stem(number), 0.0) for number in range(100))


@pytest.mark.parametrize("every", [2, 3, 7, 10, 16])
def test_requests_that_take_turns_are_drawn_alike(every: int) -> None:
    for first in range(every):
        turn = range(first, 40_000, every)
        drawn = sum(is_drawn(stem(number), 0.05) for number in turn)
        assert abs(drawn - 0.05 * len(turn)) < 5 * (0.05 * 0.95 * len(turn)) ** 0.5


def test_what_a_smaller_rate_draws_a_larger_one_draws_too() -> None:
    drawn = [number for number in range(1000) if is_drawn(stem(number), 0.1)]
    assert all(is_drawn(stem(number), 0.2) for number in drawn)


@pytest.mark.parametrize(
    ("key", "valid"),
    [("order 7", True), ("a" * 200, True), ("a" * 201, False), ("", False), ("ü", False), ("a\x7f", False)],
)
def test_a_key_is_up_to_200_printable_ascii_characters(key: str, valid: bool) -> None:
    assert is_key(key) is valid


def test_another_key_is_not_kept() -> None:
    long = served(headers={b"x-prediction-key": b"a" * 201})
    good = served(headers={b"x-prediction-key": b"order 7"})
    assert long.values is not None
    assert sampled(long, long.values, 4, rate=1, originals=False).key is None
    assert sampled(good, good.values, 4, rate=1, originals=False).key == "order 7"  # type: ignore[arg-type]


def test_a_drawn_request_waits_with_its_id_time_and_samples() -> None:
    waiting = Waiting()
    observer, counted = sampler(waiting)
    observer.ended(served(3, count=2))
    (one,) = waiting.take(10)
    assert (one.id, one.at, one.version, len(one)) == (prediction(3, version=4), 1_790_000_000.0, 4, 2)
    assert one.body == b""
    assert counted.found == {}


def test_what_is_not_to_be_kept_or_has_no_answer_is_left_out() -> None:
    waiting = Waiting()
    observer, counted = sampler(waiting)
    assert observer.wants({}, stem(1), 1)
    assert not observer.wants({b"x-capture": b" No "}, stem(1), 1)
    observer.rate = 0.0
    assert not observer.wants({}, stem(1), 1)
    observer.ended(served(values=None, error=ValueError("failed")))
    observer.ended(served(version=None))
    assert waiting.take(10) == []
    assert counted.found == {}


def test_a_request_holds_no_memory_of_the_others_in_its_batch() -> None:
    batch = np.zeros((64, 10), np.float32)
    one = served(values=batch[3:4])
    found = sampled(one, batch[3:4], 4, rate=1, originals=False)
    assert isinstance(found.values, np.ndarray)
    assert found.values.base is None
    named = Columns({"a": batch[3:4], "b": [batch[3]]})
    columns = sampled(served(values=named), named, 4, rate=1, originals=False).values
    assert isinstance(columns, Columns)
    assert [np.asarray(column[0]).base is batch for column in columns.arrays.values()] == [False, False]


def test_the_queue_is_bounded_by_rows_and_drops_are_counted() -> None:
    waiting = Waiting(most_rows=5)
    observer, counted = sampler(waiting)
    for number in range(4):
        observer.ended(served(number, count=2))
    assert waiting.load.rows == 4
    assert counted.found == {"dropped": 4}


def test_the_queue_is_bounded_by_bytes_with_the_bodies_that_are_kept() -> None:
    waiting = Waiting(most_bytes=100_000)
    observer, counted = sampler(waiting)
    observer.originals = True
    for number in range(4):
        observer.ended(served(number, body=b"x" * 40_000))
    assert 80_000 < waiting.load.bytes <= 100_000
    assert counted.found == {"dropped": 2}


def test_what_was_taken_counts_until_it_is_released() -> None:
    waiting = Waiting(most_rows=2)
    observer, counted = sampler(waiting)
    observer.ended(served(1, count=2))
    taken = waiting.take(200)
    observer.ended(served(2))
    assert counted.found == {"dropped": 1}
    waiting.release(taken)
    assert (waiting.load.rows, waiting.load.bytes) == (0, 0)
    observer.ended(served(3))
    assert len(waiting.take(200)) == 1


def test_requests_are_taken_in_order_up_to_a_number_of_rows_but_at_least_one() -> None:
    waiting = Waiting()
    observer, _ = sampler(waiting)
    for number in range(3):
        observer.ended(served(number, count=3))
    assert [one.id for one in waiting.take(6)] == [prediction(0, version=4), prediction(1, version=4)]
    assert len(waiting.take(1)) == 1


def test_of_a_large_request_the_first_samples_are_captured_and_the_others_counted() -> None:
    waiting = Waiting()
    observer, counted = sampler(waiting)
    observer.ended(served(count=MOST_SAMPLES + 7))
    (one,) = waiting.take(1000)
    assert (len(one), len(one.entries), len(one.values)) == (MOST_SAMPLES,) * 3
    assert counted.found == {"dropped": 7}
