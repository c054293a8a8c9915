"""Outcomes of single examples, which the gate counts when it compares two versions.

Two versions are evaluated on the same examples, so that only the examples that they answer differently tell which one
is better. See `models.messages.Pairs` for the counts, and `service/delivery/gate.py` for the statistics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.messages import Pairs
from training.metrics import classified, outputs, regressed
from training.recipe import Outcomes, Recipe, Split

Judge = Callable[[nn.Module, Split], Outcomes]


@dataclass(frozen=True, slots=True)
class OfOutputs:
    """Outcomes that follow from a network's outputs and the targets. Called with a network and a split, as a recipe's
    outcomes are.
    """

    of: Callable[[Tensor, Tensor], Outcomes]

    def __call__(self, network: nn.Module, split: Split) -> Outcomes:
        """Run the network on the samples, and evaluate its outputs."""
        return self.of(outputs(network, split.samples), split.targets)


@OfOutputs
def labels(logits: Tensor, targets: Tensor) -> Outcomes:
    """Outcomes for the metric accuracy: targets are int64 (N,), outputs (N, classes)."""
    answers = logits.argmax(dim=1)
    return Outcomes((answers == targets).double(), answers)


@OfOutputs
def cross_entropies(logits: Tensor, targets: Tensor) -> Outcomes:
    """Outcomes for the metric loss: negative log likelihood of each target, in nats."""
    return Outcomes(nn.functional.cross_entropy(logits, targets, reduction="none").double())


@OfOutputs
def squared_errors(values: Tensor, targets: Tensor) -> Outcomes:
    """Outcomes for the metric mse: the mean squared error of each example. Targets are float32 (N, ...)."""
    return Outcomes((values - targets).square().double().flatten(1).mean(dim=1))


@dataclass(frozen=True, slots=True)
class _Standard:
    """A standard `evaluate`: its figures from outputs and targets, and its metrics that are means over examples."""

    figures: Callable[[Tensor, Tensor], dict[str, float]]
    judges: Mapping[str, OfOutputs]


_STANDARD: Mapping[str, _Standard] = {
    "classification": _Standard(classified, {"accuracy": labels, "loss": cross_entropies}),
    "regression": _Standard(regressed, {"mse": squared_errors}),
}


def judge_of(recipe: Recipe[Any]) -> Judge | None:
    """Return the function for the outcomes of single examples: the recipe's, or that of a standard `evaluate`."""
    if recipe.outcomes is not None:
        return recipe.outcomes
    standard = _standard(recipe)
    return None if standard is None else standard.judges.get(recipe.metric)


def evaluated(recipe: Recipe[Any], network: nn.Module, split: Split) -> tuple[dict[str, float], Outcomes | None]:
    """Compute the figures of a split and, if they follow from the same outputs, the outcomes of its examples.

    The network runs once. The outcomes are None if the recipe's own `evaluate` or `outcomes` runs it.
    """
    standard, judge = _standard(recipe), judge_of(recipe)
    if standard is None or not isinstance(judge, OfOutputs):
        return recipe.evaluate(network, split), None
    found = outputs(network, split.samples)
    return standard.figures(found, split.targets), judge.of(found, split.targets)


def _standard(recipe: Recipe[Any]) -> _Standard | None:
    evaluate = recipe.evaluate
    return _STANDARD.get(evaluate.__name__) if getattr(evaluate, "__module__", "") == "training.metrics" else None


def paired_apart(
    candidate: Outcomes, live: Outcomes, is_old: Tensor | None, *, higher_is_better: bool
) -> tuple[Pairs | None, Pairs | None]:
    """Compare two versions on old and on new examples, split by bool (N,). None for a part without examples."""
    if is_old is None or len(is_old) != len(candidate.scores):
        return None, None

    def part(rows: Tensor) -> Pairs | None:
        if not rows.any():
            return None
        return paired(_of(candidate, rows), _of(live, rows), higher_is_better=higher_is_better)

    return part(is_old), part(~is_old)


def _of(outcomes: Outcomes, rows: Tensor) -> Outcomes:
    return Outcomes(outcomes.scores[rows], None if outcomes.answers is None else outcomes.answers[rows])


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
