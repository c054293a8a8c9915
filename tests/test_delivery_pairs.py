"""Statistics of paired examples: exact values, and error rates of simulated decisions."""

import math

import numpy as np
import pytest

from models.messages import Pairs
from service.delivery.pairs import advantage, mcnemar, p_of_mean


def _counts(rows: int, candidate_right: int, live_right: int) -> Pairs:
    return Pairs(
        rows=rows,
        differ=candidate_right + live_right,
        candidate_right=candidate_right,
        live_right=live_right,
        mean_gain=(candidate_right - live_right) / rows,
    )


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (8, 4), (4, 8), (30, 12), (400, 330)])
def test_mcnemar_is_the_binomial_test_with_a_half(first: int, second: int) -> None:
    n = first + second
    ways = [math.comb(n, heads) for heads in range(n + 1)]
    as_rare = sum(way for way in ways if way <= ways[first])  # as scipy.stats.binomtest(first, n, 0.5), exact
    assert mcnemar(first, second) == pytest.approx(as_rare / 2**n, rel=1e-9)


def test_without_a_margin_the_score_test_is_mcnemars() -> None:
    assert advantage(_counts(1_000, 30, 12), 0.0) == pytest.approx((30 - 12) / math.sqrt(30 + 12))


def test_the_score_test_has_the_closed_form_of_no_differences() -> None:
    """With no difference at all, the share that only live answers rightly is estimated as the margin."""
    assert advantage(_counts(300, 0, 0), -0.01) == pytest.approx(math.sqrt(300 * 0.01 / 0.99))


@pytest.mark.parametrize("rows", [500, 5_000])
def test_a_version_worse_by_the_margin_passes_no_more_often_than_alpha(rows: int) -> None:
    """2,000 simulated candidates, a point worse, with 4% of the answers different: at most 5% are found no worse."""
    drawn = np.random.default_rng(0).multinomial(rows, [0.015, 0.025, 0.96], size=2_000)
    passed = [advantage(_counts(rows, won, lost), -0.01) > 1.6449 for won, lost, _ in drawn.tolist()]
    assert np.mean(passed) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2_000)
    assert np.mean(passed) >= 0.02  # and not merely because none passes


def test_an_equal_version_is_found_no_worse_with_enough_examples() -> None:
    drawn = np.random.default_rng(0).multinomial(5_000, [0.01, 0.01, 0.98], size=500)
    passed = [advantage(_counts(5_000, won, lost), -0.01) > 1.6449 for won, lost, _ in drawn.tolist()]
    assert np.mean(passed) > 0.99


def _means(rows: int, mean_gain: float, standard_error: float) -> Pairs:
    return Pairs(
        rows=rows, differ=rows, candidate_right=rows, live_right=0, mean_gain=mean_gain, standard_error=standard_error
    )


def test_a_mean_gain_is_compared_with_its_standard_error() -> None:
    assert p_of_mean(_means(100, 1.96, 1.0)) == pytest.approx(0.05, abs=1e-4)
    assert p_of_mean(_means(100, -1.96, 1.0)) == pytest.approx(0.05, abs=1e-4)
    assert advantage(_means(100, 1.0, 0.5), 0.25) == pytest.approx(1.5)


def test_few_examples_say_nothing_of_a_mean() -> None:
    assert p_of_mean(_means(29, 100.0, 1.0)) == 1.0


@pytest.mark.parametrize(("gain", "p"), [(0.0, 1.0), (0.5, 0.0)])
def test_a_gain_without_variance_is_certain(gain: float, p: float) -> None:
    assert p_of_mean(_means(100, gain, 0.0)) == p
