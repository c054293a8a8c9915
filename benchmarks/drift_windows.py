"""Simulated windows of normal numbers: how often they are called drift, with and without a shift."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from scipy import stats

from models.drift.distribution import Distribution
from service.data.drift import compared
from service.data.drift_psi import ALPHA, limit, psi

ROWS = 2_000  # windows of each simulation
Says = Callable[[Any, Any], bool]  # of the counts of both halves of a window


@cache
def feature() -> Distribution:
    """The distribution of 20,000 normal numbers."""
    found = Distribution.of_numbers("feature", "x", np.random.default_rng(1).normal(size=20_000))
    assert found is not None
    return found


def shares(distribution: Distribution, shift: float) -> Any:
    """The probabilities of the bins for normal numbers that are shifted by so many standard deviations."""
    below = stats.norm.cdf([-np.inf, *distribution.edges, np.inf], loc=shift)
    return np.append(np.diff(below), 0.0)


def windows(samples: int, shift: float) -> Iterator[tuple[Any, Any]]:
    """Yield the counts of both halves of each window of `samples`."""
    rng = np.random.default_rng([samples, int(100 * shift)])
    halves = rng.multinomial(samples // 2, shares(feature(), shift), size=(ROWS, 2))
    return ((first, second) for first, second in halves)


def rate(samples: int, shift: float, says: Says) -> float:
    """Return the share of windows of which something is said."""
    return sum(says(first, second) for first, second in windows(samples, shift)) / ROWS


def above_a_fixed_limit(first: Any, second: Any) -> bool:
    """PSI above 0.1, whatever the number of samples."""
    return psi(np.array(feature().counts), first + second) > 0.1


def above_its_limit(first: Any, second: Any) -> bool:
    """PSI above the limit of a window of that size, without the effect floor."""
    reference, window = np.array(feature().counts), first + second
    return psi(reference, window) > limit(reference, window, ALPHA)


def has_drifted(first: Any, second: Any) -> bool:
    """What the service calls drift."""
    return compared(feature(), first, second, 1).has_drifted
