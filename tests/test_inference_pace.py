"""The measured pace of a network, and the slices that follow from it. Time is an argument."""

from threading import Event

import numpy as np
import pytest

from models.spec import Array
from service.inference.pace import BRIEF_S, SLICE_S, Pace, measured

SAMPLE = np.zeros((1, 3), np.float32)


class Network:
    """Takes `fixed_s` and `sample_s` for each sample on its own clock; the first run takes longer."""

    def __init__(self, sample_s: float, fixed_s: float = 0.0, first_s: float = 0.0) -> None:
        self.sample_s, self.fixed_s, self.first_s = sample_s, fixed_s, first_s
        self.at = 0.0
        self.batches: list[int] = []

    def run(self, samples: Array) -> Array:
        self.at += self.fixed_s + self.sample_s * len(samples) + (0 if self.batches else self.first_s)
        self.batches.append(len(samples))
        return samples

    def clock(self) -> float:
        return self.at

    def measured(self, max_batch: int = 64) -> tuple[int, Pace]:
        return measured(self.run, SAMPLE, max_batch, self.clock)


def test_a_slow_network_runs_one_sample_once() -> None:
    network = Network(sample_s=0.5)
    brief, pace = network.measured()
    assert network.batches == [1]
    assert (brief, pace.at_once) == (0, 1)


def test_a_network_that_is_a_little_slow_is_timed_three_times_and_no_batch_is_run() -> None:
    network = Network(sample_s=2 * BRIEF_S, first_s=1 * BRIEF_S)
    brief, pace = network.measured()
    assert network.batches == [1, 1, 1]
    assert (brief, pace.at_once) == (0, 2)


def test_a_fast_network_runs_a_full_batch_and_may_fill_the_event_loop() -> None:
    network = Network(sample_s=BRIEF_S / 100)
    brief, pace = network.measured()
    assert network.batches == [size for size in (1, 4, 16, 64) for _ in range(3)]
    assert brief == 64
    assert pace.at_once == pytest.approx(SLICE_S / (BRIEF_S / 100), abs=1)


def test_between_both_a_part_of_a_batch_is_brief() -> None:
    network = Network(sample_s=BRIEF_S / 10)
    brief, _ = network.measured()
    assert max(network.batches) == 16
    assert brief == 10


def test_a_batch_size_of_one_is_measured_too() -> None:
    assert Network(sample_s=BRIEF_S / 10).measured(max_batch=1)[0] == 1


def test_a_clock_that_stands_still_is_no_error() -> None:
    assert Network(sample_s=0).measured()[0] == 64


def test_time_in_which_the_thread_waits_for_others_does_not_count() -> None:
    def run(samples: Array) -> Array:
        Event().wait(1.5 * BRIEF_S)  # as for the interpreter lock, while other models are loaded
        return samples

    assert measured(run, SAMPLE, 4)[0] == 4


def test_a_network_of_unknown_pace_begins_with_one_sample_and_learns() -> None:
    pace = Pace()
    assert pace.slice_of(60) == 1
    pace.learn(1, SLICE_S / 10)
    assert pace.at_once == 10
    assert pace.slice_of(59) == 10
    assert pace.slice_of(11) == 6  # equal slices
    assert pace.slice_of(5) == 5


def test_a_device_that_computes_a_batch_as_fast_as_a_sample_soon_gets_full_batches() -> None:
    pace = Pace(SLICE_S / 10)
    slices = 0
    while pace.at_once < 64:
        pace.learn(pace.at_once, SLICE_S / 10)
        slices += 1
    assert slices <= 5


def test_one_delayed_run_does_not_cut_the_batches_of_a_fast_network() -> None:
    pace = Pace(60e-6)
    pace.learn(64, 15 * 64 * 60e-6)
    assert pace.at_once >= 64


@pytest.mark.parametrize("seconds", [3.0, 0.001])
def test_the_estimate_follows_a_change_of_pace(seconds: float) -> None:
    pace = Pace(0.05)
    for _ in range(40):
        pace.learn(1, seconds)
    assert pace.at_once == pytest.approx(max(1, SLICE_S / seconds), abs=1)
