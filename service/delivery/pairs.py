"""Statistics of two versions on the same examples. Needs the standard library only, since the worker loads no SciPy.

Sources: McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947);
Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design,
Statistics in Medicine 17 (1998).
"""

import math

from models.messages import Pairs

_LEAST_ROWS = 30  # of a mean: with fewer, its distribution is not near enough to the normal one


def mcnemar(first: int, second: int) -> float:
    """Return McNemar's exact p, two-sided: how likely `first + second` fair coins fall at least as unevenly."""
    n, most = first + second, max(first, second)
    if n == 0:
        return 1.0
    ways = tail = math.comb(n, most)
    for k in range(most, n):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**n))


def p_of_mean(pairs: Pairs) -> float:
    """Return the two-sided p of a mean gain (paired z-test); 1 if there are too few examples."""
    return 2 * above(abs(advantage(pairs, 0.0)))


def p_if_equal(pairs: Pairs) -> float:
    """Return the two-sided p of such a difference between two equally good versions."""
    if pairs.standard_error is None:
        return mcnemar(pairs.candidate_right, pairs.live_right)
    return p_of_mean(pairs)


def above(z: float) -> float:
    """Return the probability that a standard normal number exceeds `z`."""
    return math.erfc(z / math.sqrt(2)) / 2


def advantage(pairs: Pairs, margin: float) -> float:
    """Return by how many standard errors the candidate's gain exceeds `margin`: a standard normal number if the true
    gain is `margin`. Infinite if there is no variance, 0 if there are too few examples.
    """
    if pairs.standard_error is None:
        return _tango(pairs.rows, pairs.candidate_right, pairs.live_right, margin)
    if pairs.rows < _LEAST_ROWS:
        return 0.0
    return _ratio(pairs.mean_gain - margin, pairs.standard_error)


def _tango(n: int, candidate_right: int, live_right: int, margin: float) -> float:
    """Score test of a difference of two paired proportions, of which `margin` is assumed."""
    gain = candidate_right - live_right
    a = 2 * n
    b = -candidate_right - live_right + (2 * n - gain) * margin
    c = -live_right * margin * (1 - margin)
    lost = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)  # share that only live answers rightly
    return _ratio(gain - n * margin, math.sqrt(max(0.0, n * (2 * lost + margin * (1 - margin)))))


def _ratio(value: float, error: float) -> float:
    if error > 0:
        return value / error
    return math.copysign(math.inf, value) if value else 0.0
