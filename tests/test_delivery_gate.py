from typing import Any

import pytest

from service.delivery.gate import decide


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
