"""The gate: decides whether a trained version is promoted.

Both versions are evaluated on the same validation examples. Those that they answer alike say nothing about which one is
better, so the gate counts the others and how often each version was right in them (McNemar's test). A bare comparison
of two figures is noise in small splits: of two equally good versions, each wins about half of the time.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.messages import Pairs
from service.delivery.pairs import above, advantage, p_if_equal

Policy = Literal["never", "if_better", "no_worse", "always", "trial"]
SPLIT = "validation_"  # prefix of the compared figures: the test split is recorded, but decides nothing
ALPHA = 0.05
MARGIN = 0.01  # of no_worse: one point of accuracy; of an error, this share of live's
FEW_ROWS = 1_000  # below, versions must differ by more than a point to be distinguished


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How sure a comparison must be. `alpha`: how often chance alone may promote; `margin`: in the metric's unit.

    Without a margin, it is 0 for if_better; for no_worse see MARGIN.
    """

    alpha: float = ALPHA
    margin: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The comparison on some of the examples. `gain`: mean gain of the candidate, in the metric's unit; positive if it
    is better. The others are as in `Gate`.
    """

    rows: int
    differ: int
    candidate_right: int
    live_right: int
    gain: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A decision and its reasons. `candidate` and `live` are values of the metric on the same split.

    The counts are those of `Pairs`, and None if the versions were not compared example by example; `p_value`: how
    likely chance alone makes a difference at least as large between two equally good versions, either way.

    `old_rows` are the examples of the dataset version that live was trained on, `new_rows` the others: an older version
    may fall behind on newer data only. None if there are no such examples, and both if the dataset version is the same,
    or live was trained on other data than a dataset version that is there. `trial` is the trial that was opened, which
    decides instead.
    """

    decision: Literal["promoted", "kept"]
    metric: str
    candidate: float | None
    live: float | None
    reason: str
    rows: int | None = None
    differ: int | None = None
    candidate_right: int | None = None
    live_right: int | None = None
    p_value: float | None = None
    old_rows: Part | None = None
    new_rows: Part | None = None
    trial: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as stored in the job's row."""
        return asdict(self)


def decide(
    policy: Policy,
    metric: str,
    higher_is_better: bool,
    candidate: Mapping[str, float],
    live: Mapping[str, float] | None,
    pairs: Pairs | None = None,
    bounds: Bounds | None = None,
    *,
    apart: tuple[Pairs | None, Pairs | None] = (None, None),
) -> Gate:
    """Compare the figures of the candidate with those of the live version, measured on the same split.

    `if_better` without `bounds` compares the two figures, and says how sure that is. `trial` keeps any version with a
    figure, for a trial to decide, and promotes it if nothing is live. `live` is None if no version is
    live. An equal figure is not better. A missing or non-finite figure never wins. `apart` are the pairs of old and of
    new examples; they are shown, and decide nothing.
    """
    ours, theirs = _figure(candidate, metric), _figure(live or {}, metric)
    p_value = None if pairs is None else p_if_equal(pairs)

    def gate(promoted: bool, reason: str) -> Gate:
        return Gate(
            decision="promoted" if promoted else "kept",
            metric=SPLIT + metric,
            candidate=ours,
            live=theirs,
            reason=reason,
            p_value=p_value,
            old_rows=_part(apart[0]),
            new_rows=_part(apart[1]),
            **({} if pairs is None else _counts(pairs)),
        )

    if policy in {"never", "always"}:
        return gate(policy == "always", f"the job was queued with promote: {policy}")
    if ours is None:
        return gate(False, _no_figure(candidate, metric))
    if theirs is None:
        missing = f"the live version has no finite {metric} on this split"
        return gate(True, "nothing was live" if live is None else missing)
    better = ours > theirs if higher_is_better else ours < theirs
    said = f"{metric} {ours:.6g} is {'better' if better else 'not better'} than {theirs:.6g} of live"
    if policy == "trial" or (policy == "if_better" and bounds is None):
        return gate(better and policy != "trial", f"{said}{_surety(pairs, p_value)}")
    if pairs is None or p_value is None:
        return gate(False, f"{said}; {_NOT_COMPARED}")
    passed, why = _tested(policy, bounds or Bounds(), pairs, theirs, p_value)
    return gate(passed, f"{said}; {why}{_few(pairs)}")


_NOT_COMPARED = (
    "how sure that is cannot be said: the recipe does not judge single examples (Recipe.outcomes), "
    "or the live version could not be evaluated"
)


def _tested(policy: Policy, bounds: Bounds, pairs: Pairs, live: float, p_equal: float) -> tuple[bool, str]:
    """Return whether the candidate passes a test with bounds, and why. `p_equal`: see `Gate.p_value`."""
    if policy == "if_better":
        margin = bounds.margin or 0.0
        z = advantage(pairs, margin)
        p, sides = 2 * above(abs(z)) if margin else p_equal, "p"
        passed = z > 0 and p < bounds.alpha
        claim = f"better by more than {margin:g}" if margin else "better"
    else:
        default = MARGIN if pairs.standard_error is None else MARGIN * abs(live)
        margin = default if bounds.margin is None else bounds.margin
        p, sides = above(advantage(pairs, -margin)), "one-sided p"
        passed = p < bounds.alpha
        claim = f"worse by less than {margin:g}"
    surely = "surely" if passed else "not surely"
    return passed, f"{_in_counts(pairs)}: {surely} {claim} ({sides} = {p:.2g}, alpha = {bounds.alpha:g})"


def _surety(pairs: Pairs | None, p_value: float | None) -> str:
    """Say how sure a bare comparison is."""
    if pairs is None or p_value is None:
        return ""
    chance = "; that may be chance" if p_value >= ALPHA else ""
    return f"; {_in_counts(pairs)}, p = {p_value:.2g}{chance}{_few(pairs)}"


def _in_counts(pairs: Pairs) -> str:
    better = "right on {} alone, live on {} alone" if pairs.standard_error is None else "closer on {}, live on {}"
    counts = better.format(pairs.candidate_right, pairs.live_right)
    return f"the answers differ on {pairs.differ} of {pairs.rows} examples, the candidate is {counts}"


def _few(pairs: Pairs) -> str:
    if pairs.rows >= FEW_ROWS:
        return ""
    return f". {pairs.rows} validation examples are few: with {FEW_ROWS} or more, smaller differences show"


def _counts(pairs: Pairs) -> dict[str, Any]:
    return {name: getattr(pairs, name) for name in ("rows", "differ", "candidate_right", "live_right")}


def _part(pairs: Pairs | None) -> Part | None:
    return None if pairs is None else Part(**_counts(pairs), gain=pairs.mean_gain, p_value=p_if_equal(pairs))


def _figure(figures: Mapping[str, float], metric: str) -> float | None:
    value = figures.get(SPLIT + metric)
    return value if value is not None and math.isfinite(value) else None


def _no_figure(figures: Mapping[str, float], metric: str) -> str:
    if SPLIT + metric in figures:
        return f"the candidate has no finite {metric}"
    known = ", ".join(name.removeprefix(SPLIT) for name in figures if name.startswith(SPLIT))
    return f"the recipe's metric is {metric}, but its evaluate returns {known or 'no figures'}"
