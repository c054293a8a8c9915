"""How long a network takes for a sample: measured when it is loaded, learned from its runs, used to bound slices.

Samples of different lengths take unequal time: there, elements of the padded arrays are counted instead.
"""

import math
import time
from collections.abc import Callable, Iterable
from itertools import accumulate, chain
from typing import Any

from models.padding import Padding, buckets, slice_of
from models.samples import Batch, Columns, resized

SLICE_S = 0.02  # how long one lane holds the device; handing a slice to a thread costs 0.1 ms
BRIEF_S = 0.004  # how long the event loop may block: handing a batch to a thread costs a tenth of the rate
_TRIES = 3  # the shortest counts: the first run allocates, and other web processes may be loading
_CLEARLY_SLOW = 10  # times BRIEF_S: one try is enough
_STEP = 4  # from one batch size to the next


class Pace:
    """Estimated time of a network per sample. `at_once` samples take about SLICE_S, or are one; unknown: one.

    Long runs that were delayed by something else change the estimate less than short ones.
    """

    __slots__ = ("_sample_s", "at_once")

    def __init__(self, sample_s: float = 0.0) -> None:
        """`sample_s`: seconds per sample; 0 if unknown."""
        self.at_once = 1
        self._sample_s = sample_s
        self._set()

    def learn(self, samples: int, seconds: float) -> None:
        """Correct the estimate by the time that a run of `samples` samples took."""
        measured = seconds / samples
        if not self._sample_s:
            self._sample_s = measured
        else:
            self._sample_s += (measured - self._sample_s) / (2 if measured < self._sample_s else 4)
        self._set()

    def slice_of(self, samples: int) -> int:
        """Return the size of the next slice of `samples` samples: equal slices, of at most `at_once`."""
        return -(-samples // -(-samples // self.at_once))

    def cost(self, samples: Batch) -> int:
        """Return the number that `learn` takes for a batch."""
        return len(samples)

    def cut(self, samples: Batch, start: int) -> tuple[int, int]:
        """Return how many samples from `start` on the next slice has, and the number that `learn` takes for them."""
        size = self.slice_of(len(samples) - start)
        return size, size

    def _set(self) -> None:
        if self._sample_s:
            self.at_once = max(1, int(SLICE_S / self._sample_s))


class RaggedPace(Pace):
    """Pace of a network whose samples differ in length: it counts the elements of the padded arrays, not samples."""

    __slots__ = ("_padding",)

    def __init__(self, padding: Padding) -> None:
        super().__init__()
        self._padding = padding

    def cost(self, samples: Batch) -> int:
        """Return the number of elements of the padded arrays."""
        assert isinstance(samples, Columns)
        return slice_of(samples.take(self.order(samples)), self._padding, 0, math.inf)[1]

    def cut(self, samples: Batch, start: int) -> tuple[int, int]:
        """See Pace. The samples are in the order of `order`."""
        assert isinstance(samples, Columns)
        return slice_of(samples, self._padding, start, self.at_once)

    def order(self, samples: Columns) -> list[int]:
        """Return the positions of the samples bucket by bucket, so that a slice has little padding."""
        return list(chain.from_iterable(buckets(samples, self._padding)))

    def first_of(self, sizes: Iterable[int]) -> int:
        """Return how many of the first callers' samples, of these numbers of elements, are a slice, without padding."""
        return max(1, sum(total <= self.at_once for total in accumulate(sizes)))


def pace_of(padding: Padding | None) -> Pace:
    """Return the pace of a network of which nothing is known yet; see `measured` for `padding`."""
    return Pace() if padding is None else RaggedPace(padding)


def measured(
    run: Callable[[Any], Any],
    samples: Batch,
    max_batch: int,
    clock: Callable[[], float] = time.thread_time,
    padding: Padding | None = None,
) -> tuple[int, Pace]:
    """Time batches from one sample up to `max_batch`, and stop at the first one that takes longer than BRIEF_S.

    Returns how many samples take at most BRIEF_S, 0 if not even one does, and the pace. A slow network never runs a
    large batch here, which would take seconds and hundreds of MB. The largest size of a fast one is warm afterwards.
    By default the clock is the CPU time of the calling thread, which does its share of the network's work: the models
    of a process are loaded at once, and each waits 5 ms and longer for the interpreter lock.
    `padding`: that of samples that differ in length; None if they do not.
    """
    size, pace = 1, pace_of(padding)
    while True:
        batch = resized(samples, size)
        seconds = _shortest(run, batch, clock)
        if seconds > BRIEF_S or size == max_batch:
            pace.learn(pace.cost(batch), seconds)
            return int(size * min(1.0, BRIEF_S / seconds)) if seconds else size, pace
        size = min(size * _STEP, max_batch)


def _shortest(run: Callable[[Any], Any], batch: Batch, clock: Callable[[], float]) -> float:
    shortest = float("inf")
    for _ in range(_TRIES):
        began = clock()
        run(batch)
        shortest = min(shortest, clock() - began)
        if shortest > _CLEARLY_SLOW * BRIEF_S:
            break
    return shortest
