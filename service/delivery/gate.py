"""The gate: decides whether a trained version is promoted."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Policy = Literal["never", "if_better", "always"]
SPLIT = "validation_"  # prefix of the compared figures: the test split is recorded, but decides nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A decision and its reasons. `candidate` and `live` are values of the metric on the same split."""

    decision: Literal["promoted", "kept"]
    metric: str
    candidate: float | None
    live: float | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as stored in the job's row."""
        return asdict(self)


def decide(
    policy: Policy,
    metric: str,
    higher_is_better: bool,
    candidate: Mapping[str, float],
    live: Mapping[str, float] | None,
) -> Gate:
    """Compare the figures of the candidate with those of the live version, measured on the same split.

    `live` is None if no version is live. An equal figure is not better. A missing or non-finite figure never wins.
    """
    ours, theirs = _figure(candidate, metric), _figure(live or {}, metric)

    def gate(promoted: bool, reason: str) -> Gate:
        decision: Literal["promoted", "kept"] = "promoted" if promoted else "kept"
        return Gate(decision=decision, metric=SPLIT + metric, candidate=ours, live=theirs, reason=reason)

    if policy == "never":
        return gate(False, "the job was queued with promote: never")
    if policy == "always":
        return gate(True, "the job was queued with promote: always")
    if ours is None:
        return gate(False, _no_figure(candidate, metric))
    if live is None:
        return gate(True, "nothing was live")
    if theirs is None:
        return gate(True, f"the live version has no finite {metric} on this split")
    better = ours > theirs if higher_is_better else ours < theirs
    return gate(better, f"{metric} {ours:.6g} is {'better' if better else 'not better'} than {theirs:.6g} of live")


def _figure(figures: Mapping[str, float], metric: str) -> float | None:
    value = figures.get(SPLIT + metric)
    return value if value is not None and math.isfinite(value) else None


def _no_figure(figures: Mapping[str, float], metric: str) -> str:
    if SPLIT + metric in figures:
        return f"the candidate has no finite {metric}"
    known = ", ".join(name.removeprefix(SPLIT) for name in figures if name.startswith(SPLIT))
    return f"the recipe's metric is {metric}, but its evaluate returns {known or 'no figures'}"
