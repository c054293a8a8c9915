"""E-values against "both versions are equal": sound at any look, by simulation, and powerful."""

import math

import numpy as np
import pytest

from benchmarks import trials as simulated
from service.delivery.evidence import above, e_of, e_value, limit, log_evidence, quantile
from service.delivery.trials import DEFAULT_STAGES, Stage

BOUNDS = (0.1, 0.2, 0.4)


def test_the_evidence_is_the_mean_over_bets() -> None:
    bets = [0.95 / 0.1 * place / 24 for place in range(1, 25)]
    mean = sum((1 + bet * 0.9) ** 3 * (1 - bet * 0.1) ** 4 for bet in bets) / 24
    assert float(log_evidence(3, 7, 0.1)) == pytest.approx(math.log(mean))
    assert log_evidence([[3, 0]], [[7, 0]], 0.1).tolist() == [[pytest.approx(math.log(mean)), pytest.approx(0)]]


def test_no_cases_are_no_evidence_and_few_of_the_candidate_speak_for_it() -> None:
    assert e_of(0, 0, 0.1) == pytest.approx(1)
    assert e_of(0, 40) < 0.1
    assert e_of(3, 3, 0.1) > limit(0.01)
    assert e_of(2, 2, 0.1) < limit(0.01)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_equal_versions_have_one_on_average_whatever_the_share(share: float) -> None:
    n = 30
    chances = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    assert sum(chance * e_of(k, n, share) for k, chance in enumerate(chances)) == pytest.approx(1)


def test_the_product_of_overwhelming_evidence_is_a_finite_number() -> None:
    assert e_value([float(log_evidence(500, 500, 0.01))] * 9) == math.exp(700)


def test_a_stage_in_which_the_candidate_did_well_takes_evidence_away() -> None:
    early, late = float(log_evidence(0, 20, 0.5)), float(log_evidence(8, 8, 0.25))
    assert e_value([early, late]) < e_value([late])


def test_equal_versions_are_hardly_ever_rolled_back_and_bad_ones_soon() -> None:
    rng = np.random.default_rng(7)
    equal = simulated.simulate(rng, 1000, 20_000, 0.1, 0.005, 0.005)
    assert simulated.share_rolled_back(simulated.by_evidence(equal, 0.1, 0.01)) <= 0.01
    assert simulated.share_rolled_back(simulated.by_evidence(equal, 0.1, 0.05)) <= 0.05
    assert simulated.share_rolled_back(simulated.by_z_test(equal)) > 0.3
    assert simulated.share_rolled_back(simulated.by_rates(equal)) > 0.4
    for rate, soon in ((0.05, 1_200), (0.3, 200)):
        bad = simulated.simulate(rng, 200, 2_000, 0.1, 0.005, rate)
        assert simulated.found_at(simulated.by_evidence(bad, 0.1, 0.01)) <= soon


def test_errors_in_clusters_of_one_key_are_counted_once() -> None:
    keys, requests = simulated.clustered(np.random.default_rng(7), 400)
    assert simulated.share_rolled_back(simulated.by_evidence(keys, 0.1, 0.01)) <= 0.01
    assert simulated.share_rolled_back(simulated.by_evidence(requests, 0.1, 0.01)) > 0.2


def test_whole_trials_of_equal_versions_stay_within_alpha() -> None:
    rng = np.random.default_rng(7)
    growing = tuple(Stage(share=share, for_s=1, samples=1) for share in (0.05, 0.1, 0.25, 0.5))
    for stages in (DEFAULT_STAGES, growing):
        assert simulated.whole_trials(rng, 1000, stages, once=True).mean() <= 0.01
    assert simulated.flaky_shadows(rng, 200).mean() <= 0.01


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ((), 0.5, None),
        ((0, 0, 0, 0), 0.5, None),
        ((10, 0, 0, 0), 0.5, 0.05),
        ((10, 10, 0, 0), 0.75, 0.15),
        ((0, 0, 10, 0), 1.0, 0.4),
        ((0, 0, 0, 5), 0.5, 0.4),
        ((1, 0, 0, 99), 0.95, 0.4),
    ],
)
def test_a_quantile_lies_within_its_bucket(counts: tuple[int, ...], share: float, value: float | None) -> None:
    found = quantile(counts, BOUNDS, share)
    assert found == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(("value", "count"), [(0.1, 9), (0.15, 7), (0.2, 7), (0.3, 4), (0.4, 4), (9.0, 0)])
def test_only_values_in_buckets_above_a_value_are_surely_above_it(value: float, count: int) -> None:
    assert above((1, 2, 3, 4), BOUNDS, value) == count
