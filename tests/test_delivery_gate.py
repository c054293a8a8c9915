from dataclasses import replace
from typing import Any

import pytest

from models.messages import Pairs
from service.delivery.gate import Bounds, Gate, Policy, decide


@pytest.mark.parametrize(
    ("policy", "higher", "candidate", "live", "decision"),
    [
        ("if_better", True, 0.9, 0.8, "promoted"),
        ("if_better", True, 0.8, 0.9, "kept"),
        ("if_better", True, 0.9, 0.9, "kept"),
        ("if_better", False, 0.1, 0.2, "promoted"),
        ("if_better", False, 0.2, 0.1, "kept"),
        ("always", True, 0.1, 0.9, "promoted"),
        ("never", True, 0.9, 0.1, "kept"),
    ],
)
def test_the_better_version_is_promoted_unless_configured_otherwise(
    policy: Any,
    higher: bool,
    candidate: float,
    live: float,
    decision: str,
) -> None:
    gate = decide(policy, "x", higher, {"validation_x": candidate, "x": 0}, {"validation_x": live, "x": 1})
    assert (gate.decision, gate.candidate, gate.live, gate.metric) == (decision, candidate, live, "validation_x")
    assert gate.reason


def test_the_first_version_goes_live() -> None:
    assert decide("if_better", "x", True, {"validation_x": 0.1}, None).reason == "nothing was live"


@pytest.mark.parametrize("figures", [{}, {"validation_x": float("nan")}, {"x": 1.0}])
def test_a_figure_that_is_missing_or_not_finite_never_wins(figures: dict[str, float]) -> None:
    assert decide("if_better", "x", False, figures, {"validation_x": 0.5}).decision == "kept"
    assert decide("if_better", "x", False, figures, None).decision == "kept"
    assert decide("if_better", "x", False, {"validation_x": 0.5}, figures).decision == "promoted"


def test_a_metric_that_the_recipe_does_not_compute_is_named_with_those_that_it_does() -> None:
    reason = decide("if_better", "acuracy", True, {"validation_accuracy": 0.9, "validation_loss": 0.1}, None).reason
    assert reason == "the recipe's metric is acuracy, but its evaluate returns accuracy, loss"


def _pairs(candidate_right: int, live_right: int, rows: int = 5_000) -> Pairs:
    return Pairs(
        rows=rows,
        differ=candidate_right + live_right,
        candidate_right=candidate_right,
        live_right=live_right,
        mean_gain=(candidate_right - live_right) / rows,
    )


def _decided(policy: Policy, pairs: Pairs | None, bounds: Bounds | None = None) -> Gate:
    gain = 0.0 if pairs is None else pairs.mean_gain
    return decide(
        policy, "accuracy", True, {"validation_accuracy": 0.9 + gain}, {"validation_accuracy": 0.9}, pairs, bounds
    )


def test_a_bare_comparison_says_how_sure_it_is() -> None:
    gate = _decided("if_better", _pairs(8, 4))
    assert (gate.decision, gate.rows, gate.differ, gate.candidate_right, gate.live_right) == (
        "promoted",
        5_000,
        12,
        8,
        4,
    )
    assert gate.p_value == pytest.approx(0.3877, abs=1e-4)
    assert gate.reason.endswith(
        "the answers differ on 12 of 5000 examples, the candidate is right on 8 alone, live on 4 alone, p = 0.39; "
        "that may be chance"
    )


@pytest.mark.parametrize(
    ("pairs", "bounds", "decision"),
    [
        (_pairs(8, 4), Bounds(), "kept"),
        (_pairs(30, 8), Bounds(), "promoted"),
        (_pairs(8, 30), Bounds(), "kept"),
        (_pairs(30, 8), Bounds(alpha=0.0001), "kept"),
        (_pairs(30, 8), Bounds(margin=0.01), "kept"),
        (_pairs(300, 8), Bounds(margin=0.01), "promoted"),
        (_pairs(0, 0), Bounds(), "kept"),
    ],
)
def test_if_better_with_bounds_asks_for_a_difference_beyond_chance(pairs: Pairs, bounds: Bounds, decision: str) -> None:
    assert _decided("if_better", pairs, bounds).decision == decision


@pytest.mark.parametrize(
    ("pairs", "bounds", "decision"),
    [
        (_pairs(20, 20), None, "promoted"),
        (_pairs(20, 90), None, "kept"),
        (_pairs(0, 0, rows=100), None, "kept"),
        (_pairs(0, 0, rows=100), Bounds(margin=0.1), "promoted"),
        (_pairs(20, 90), Bounds(margin=0.03), "promoted"),
        (_pairs(20, 20), Bounds(alpha=1e-9), "kept"),
    ],
)
def test_no_worse_promotes_a_version_that_is_surely_not_worse_by_the_margin(
    pairs: Pairs, bounds: Bounds | None, decision: str
) -> None:
    gate = _decided("no_worse", pairs, bounds)
    assert gate.decision == decision
    assert "worse by less than" in gate.reason


def test_the_margin_of_an_error_is_a_share_of_lives() -> None:
    pairs = Pairs(rows=100, differ=100, candidate_right=50, live_right=50, mean_gain=0.0, standard_error=0.01)
    figures = {"validation_mse": 4.0}
    gate = decide("no_worse", "mse", False, figures, figures, pairs)
    assert "worse by less than 0.04" in gate.reason
    assert gate.decision == "promoted"


def test_old_and_new_examples_are_shown_apart_and_decide_nothing() -> None:
    pairs, old, new = _pairs(30, 8), _pairs(2, 8, rows=900), _pairs(28, 0, rows=100)
    figures = {"validation_accuracy": 0.9}, {"validation_accuracy": 0.8}
    gate = decide("if_better", "accuracy", True, *figures, pairs, apart=(old, new))
    assert replace(gate, old_rows=None, new_rows=None) == decide("if_better", "accuracy", True, *figures, pairs)
    p = pytest.approx(2 / 2**28)
    part = {"rows": 100, "differ": 28, "candidate_right": 28, "live_right": 0, "gain": 0.28, "p_value": p}
    assert gate.as_dict()["new_rows"] == part
    assert gate.old_rows
    assert (gate.old_rows.rows, gate.old_rows.gain) == (900, -6 / 900)
    assert decide("if_better", "accuracy", True, *figures, pairs).new_rows is None


def test_few_examples_are_named() -> None:
    assert "200 validation examples are few" in _decided("if_better", _pairs(8, 4, rows=200)).reason


@pytest.mark.parametrize(("policy", "bounds"), [("if_better", Bounds()), ("no_worse", None)])
def test_without_single_examples_a_test_cannot_be_passed(policy: Policy, bounds: Bounds | None) -> None:
    gate = _decided(policy, None, bounds)
    assert gate.decision == "kept"
    assert "Recipe.outcomes" in gate.reason
    assert gate.p_value is None
