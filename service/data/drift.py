"""Drift of a version: its inputs and answers in a window, compared with its reference.

A distribution has drifted if the PSI of the whole window is above the limit of its size and above an effect floor, and
both halves of the window are above a limit of their own: a burst of odd requests is no drift. A minute is not divided,
so a window of one minute never has drifted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.drift.distribution import Distribution
from models.drift.reference import DriftCounts, DriftReference
from service.data.drift_psi import ALPHA, FLOOR, HALF_ALPHA, LEAST, limit, psi
from service.data.drift_rows import MINUTE_S, DriftRows

State = Literal["drift", "suspected", "stable", "too few samples"]
Rows = Sequence[tuple[int, DriftCounts]]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One half of a window: samples, and PSI and its limit."""

    samples: int
    psi: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One distribution in a window."""

    distribution: Distribution
    window: Counts
    psi: float
    limit: float
    halves: tuple[Half, Half]

    @property
    def is_above(self) -> bool:
        """Whether the whole window is above its limit; it has samples enough."""
        return int(self.window.sum()) >= LEAST and self.psi > self.limit

    @property
    def has_drifted(self) -> bool:
        """See the module."""
        return self.is_above and all(half.samples >= LEAST and half.psi > half.limit for half in self.halves)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The drift of a version from minute `begin` until before minute `end`."""

    begin: int
    end: int
    counts: DriftCounts
    reference: DriftReference
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """Whether there is drift; suspected: not in both halves yet."""
        if any(one.has_drifted for one in self.findings):
            return "drift"
        if any(one.is_above for one in self.findings):
            return "suspected"
        return "stable" if self.counts.samples >= 2 * LEAST else "too few samples"

    @property
    def confidence(self) -> float | None:
        """Mean probability of the answered labels in the window."""
        return self.counts.confidence / self.counts.answers if self.counts.answers else None


def drift_of(rows: DriftRows, model: str, version: int, window_s: float, now: float) -> Drift:
    """Compare the last `window_s` seconds of a version with its reference: the minutes that have been written.

    Raises NotFound, StoreUnavailable, and ValueError with the reason if the version has no reference.
    """
    return drift_from(rows.reference(model, version), rows, model, version, window_s, now)


def drift_from(
    reference: DriftReference, rows: DriftRows, model: str, version: int, window_s: float, now: float
) -> Drift:
    """Compare as `drift_of` does, with a reference that is already loaded. Raises StoreUnavailable."""
    begin, end = window_of(window_s, now)
    return judged(reference, rows.between(model, version, begin, end), begin, end)


def window_of(window_s: float, now: float) -> tuple[int, int]:
    """Return the minutes of the last `window_s` seconds: from the first until before the second."""
    end = int(now // MINUTE_S) + 1
    return end - max(1, round(window_s / MINUTE_S)), end


def judged(reference: DriftReference, rows: Rows, begin: int, end: int) -> Drift:
    """Compare the counts of minutes with a reference."""
    none = DriftCounts.none(reference)
    fitting = [counts for _, counts in rows if list(map(len, counts.parts)) == list(map(len, none.parts))]
    at = _middle([counts.samples for counts in fitting])
    halves = reduce(add, fitting[:at], none), reduce(add, fitting[at:], none)
    tests = len(reference.distributions)
    findings = tuple(
        compared(one, halves[0].parts[place], halves[1].parts[place], tests)
        for place, one in enumerate(reference.distributions)
    )
    counts = halves[0] + halves[1]
    return Drift(begin=begin, end=end, counts=counts, reference=reference, findings=findings)


def compared(distribution: Distribution, first: Counts, second: Counts, tests: int) -> Finding:
    """Compare the counts of both halves of a window with one of the `tests` distributions of a reference."""
    reference, window = np.array(distribution.counts, np.int64), first + second
    return Finding(
        distribution=distribution,
        window=window,
        psi=psi(reference, window),
        limit=max(FLOOR, limit(reference, window, ALPHA / tests)),
        halves=(_half(reference, first, tests), _half(reference, second, tests)),
    )


def _half(reference: Counts, half: Counts, tests: int) -> Half:
    samples = int(half.sum())
    return Half(samples=samples, psi=psi(reference, half), limit=limit(reference, half, HALF_ALPHA / tests))


def _middle(samples: Sequence[int]) -> int:
    """Return how many of the minutes make the first half: both halves have about as many samples."""
    if not samples:
        return 0
    until = np.cumsum(samples)
    return int(np.abs(2 * until - until[-1]).argmin()) + 1
