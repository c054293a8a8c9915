"""Outcomes of single examples, which the gate counts when it compares two versions.

Two versions are evaluated on the same examples, so that only the examples that they answer differently tell which one
is better. See `models.messages.Pairs` for the counts, and `service/delivery/gate.py` for the statistics.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from models.messages import Pairs
from training.metrics import outputs
from training.recipe import Outcomes, Recipe, Split

Judge = Callable[[nn.Module, Split], Outcomes]


def labels(network: nn.Module, split: Split) -> Outcomes:
    """Outcomes for the metric accuracy: targets are int64 (N,), outputs (N, classes)."""
    answers = outputs(network, split.samples).argmax(dim=1)
    return Outcomes((answers == split.targets).double(), answers)


def cross_entropies(network: nn.Module, split: Split) -> Outcomes:
    """Outcomes for the metric loss: negative log likelihood of each target, in nats."""
    found = nn.functional.cross_entropy(outputs(network, split.samples), split.targets, reduction="none")
    return Outcomes(found.double())


def squared_errors(network: nn.Module, split: Split) -> Outcomes:
    """Outcomes for the metric mse: the mean squared error of each example. Targets are float32 (N, ...)."""
    error = outputs(network, split.samples) - split.targets
    return Outcomes(error.square().double().flatten(1).mean(dim=1))


_STANDARD: Mapping[str, Mapping[str, Judge]] = {  # figures of `evaluate` -> its metrics that are means over examples
    "classification": {"accuracy": labels, "loss": cross_entropies},
    "regression": {"mse": squared_errors},
}


def judge_of(recipe: Recipe[Any]) -> Judge | None:
    """Return the function for the outcomes of single examples: the recipe's, or that of a standard `evaluate`."""
    if recipe.outcomes is not None:
        return recipe.outcomes
    evaluate = recipe.evaluate
    standard = evaluate.__name__ if getattr(evaluate, "__module__", "") == "training.metrics" else ""
    return _STANDARD.get(standard, {}).get(recipe.metric)


def paired(candidate: Outcomes, live: Outcomes, *, higher_is_better: bool) -> Pairs:
    """Count the examples that two versions answer differently, and which version was better on them."""
    gain = candidate.scores - live.scores if higher_is_better else live.scores - candidate.scores
    if candidate.answers is None or live.answers is None:
        differ = gain != 0
    else:
        differ = (candidate.answers != live.answers).reshape(len(gain), -1).any(dim=1)
    is_count = all(bool(((one.scores == 0) | (one.scores == 1)).all()) for one in (candidate, live))
    rows = len(gain)
    return Pairs(
        rows=rows,
        differ=int(differ.sum()),
        candidate_right=int((gain > 0).sum()),
        live_right=int((gain < 0).sum()),
        mean_gain=gain.mean().item(),
        standard_error=None if is_count else (gain.std() / rows**0.5).item() if rows > 1 else 0.0,
    )
