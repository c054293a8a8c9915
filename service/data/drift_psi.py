"""The statistic of drift: the population stability index (PSI) of two histograms, and its limit.

If both histograms are of the same population, PSI / (1/n + 1/m) is about chi-square distributed, so that a fixed limit
would mean nothing at small n: of 100 samples, PSI is above 0.1 in a third of all windows without any drift.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FLOOR = 0.05  # of PSI: a shift by 0.22 standard deviations. Smaller ones are no drift, however sure
ALPHA = 0.001  # how often a window without drift is above its limit, over all distributions of a version
HALF_ALPHA = 0.05  # the same, for each of the two halves of the window
LEAST = 200  # samples in each half
_HALF = 0.5  # pseudo-count
Counts = NDArray[np.int64]


def psi(reference: Counts, window: Counts) -> float:
    """Return the sum over bins of (w - r) ln(w / r), for the shares w and r of the window and of the reference.

    Empty bins have a pseudo-count: in the reference half a sample; in the window as many as expected, at most half a
    sample, so that a bin that is rare in the reference does not count if it is empty. 0 without samples.
    """
    n = int(window.sum())
    if not n or not reference.sum():
        return 0.0
    used = (reference > 0) | (window > 0)
    expected = np.where(reference > 0, reference, _HALF)[used].astype(np.float64)
    expected /= expected.sum()
    found = window[used] + np.minimum(_HALF, n * expected) * (window[used] == 0)
    found = found / found.sum()
    return float(((found - expected) * np.log(found / expected)).sum())


def limit(reference: Counts, window: Counts, alpha: float) -> float:
    """Return the PSI that such a window exceeds with probability alpha without drift; infinite if it is empty."""
    n, m = int(window.sum()), int(reference.sum())
    if not n or not m:
        return math.inf
    bins = int(((reference > 0) | (window > 0)).sum())
    return chi_square(1 - alpha, max(1, bins - 1)) * (1 / n + 1 / m)


def chi_square(share: float, freedom: int) -> float:
    """Return the quantile of the chi-square distribution (Wilson, Hilferty 1931).

    From 3 degrees of freedom on it is within 2% for shares of 0.95 to 0.999, and at most 6% too large beyond.
    """
    if freedom == 1:
        return NormalDist().inv_cdf((1 + share) / 2) ** 2
    if freedom == 2:
        return -2 * math.log1p(-share)
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + NormalDist().inv_cdf(share) * math.sqrt(part)) ** 3)
