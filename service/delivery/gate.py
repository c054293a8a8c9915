"""The gate: whether a trained version goes live."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Policy = Literal["never", "if_better", "always"]
SPLIT = "validation_"  # of the figures that are compared: the test split is for the record and decides nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The decision and what it rests on. `candidate` and `live` are the metric's values on the same split."""

    decision: Literal["promoted", "kept"]
    metric: str
    candidate: float | None
    live: float | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """As it is stored and answered."""
        return asdict(self)


def decide(
    policy: Policy,
    metric: str,
    higher_is_better: bool,
    candidate: Mapping[str, float],
    live: Mapping[str, float] | None,
) -> Gate:
    """Compare the figures of the candidate's file with those of the live one, measured on the same split.

    `live` is None where nothing is live. Equal is not better. A figure that is missing or not finite never wins.
    """
    ours, theirs = _figure(candidate, metric), _figure(live or {}, metric)

    def gate(promoted: bool, reason: str) -> Gate:
        decision: Literal["promoted", "kept"] = "promoted" if promoted else "kept"
        return Gate(decision=decision, metric=SPLIT + metric, candidate=ours, live=theirs, reason=reason)

    if policy == "never":
        return gate(False, "the job asked for no promotion")
    if policy == "always":
        return gate(True, "the job asked for promotion whatever the figures")
    if ours is None:
        return gate(False, f"the candidate has no finite {metric}")
    if live is None:
        return gate(True, "nothing was live")
    if theirs is None:
        return gate(True, f"the live version has no finite {metric} on this split")
    better = ours > theirs if higher_is_better else ours < theirs
    return gate(better, f"{metric} {ours:.6g} is {'better' if better else 'not better'} than {theirs:.6g} of live")


def _figure(figures: Mapping[str, float], metric: str) -> float | None:
    value = figures.get(SPLIT + metric)
    return value if value is not None and math.isfinite(value) else None
