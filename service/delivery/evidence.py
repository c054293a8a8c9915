"""Evidence that a candidate is worse: betting e-processes, which hold at any time one looks.

An e-value is the capital of a bettor who starts with 1 and bets against "both versions are equal". If they are equal,
it ever reaches 1/alpha with probability at most alpha, however often one looks (Ville's inequality); values of
consecutive stages multiply. Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting,
JRSS B 86 (2024); Robbins, Statistical methods related to the law of the iterated logarithm, Ann. Math. Stat. 41 (1970).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BETS = 24  # evenly spaced
_BOLDEST = 0.95  # of the bet that could lose everything
_LARGEST = 700.0  # logarithm of the largest e-value that is a finite double


def log_evidence(worse: ArrayLike, total: ArrayLike, share: float) -> NDArray[np.float64]:
    """Return the logarithms of the e-values for `worse` of `total` cases being the candidate's, arrays of any shape.

    If both versions are equal, a case is the candidate's with probability `share`, more than 0 and less than 1. The
    e-value is the mean over bets L of (1 + L(1 - share))^worse (1 - L share)^(total - worse).
    """
    k, n = np.asarray(worse, np.float64), np.asarray(total, np.float64)
    bets = np.arange(1, _BETS + 1) * (_BOLDEST / share / _BETS)  # (24,)
    won, lost = np.log1p(bets * (1 - share)), np.log1p(-bets * share)
    capital = k[..., None] * won + (n - k)[..., None] * lost  # (..., 24)
    most = capital.max(axis=-1)
    logarithms: NDArray[np.float64] = most + np.log(np.exp(capital - most[..., None]).mean(axis=-1))
    return logarithms


def e_value(logarithms: Sequence[float]) -> float:
    """Return the product of e-values, given by their logarithms; at most e^700."""
    return math.exp(min(_LARGEST, sum(logarithms)))


def e_of(worse: int, total: int, share: float = 0.5) -> float:
    """Return the e-value of counts."""
    return e_value([float(log_evidence(worse, total, share))])


def limit(alpha: float) -> float:
    """Return the e-value that decides, so that equal versions are rolled back with probability at most `alpha`."""
    return 1 / alpha


def quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """Return a quantile of a histogram, interpolated within its bucket; None if it is empty.

    `counts` has one entry for each upper bound, and one for values above the last bound, which count as it.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, before, low = share * total, 0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if count and before + count >= wanted:
            return low + (high - low) * max(0.0, wanted - before) / count
        before, low = before + count, high
    return bounds[-1]


def above(counts: Sequence[int], bounds: Sequence[float], value: float) -> int:
    """Return how many values of a histogram are surely above `value`: in buckets that begin at or above it."""
    first = next((place for place, bound in enumerate(bounds) if bound >= value), len(bounds))
    return sum(counts[first + 1 :])
