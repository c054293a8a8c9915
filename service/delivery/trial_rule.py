"""The rule of trials: verdicts on the conditions from a tally, and the step that follows from them.

No verdict comes from a raw rate, and none from no traffic. Errors are counted by key. Agreement and latency, whose
cases come in bursts, are judged minute by minute: a minute in which the condition does not hold is one case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.delivery.evidence import above, e_of, e_value, limit, log_evidence, quantile
from service.delivery.trial_rows import Arm, Stage, Trial
from service.delivery.trial_tally import Keys, Tally
from service.telemetry.metrics import SECONDS

Outcome = Literal["passed", "failed", "undecided", "not judged"]
Action = Literal["wait", "advance", "pause", "roll_back"]
Name = Literal["errors", "agreement", "latency", "accuracy"]
ALPHA = 0.01  # of conditions that have no own
_P95 = 0.95
_FEW = 20  # cases of a minute: with fewer, the minute says nothing
_UNLUCKY = 0.65  # the greatest probability that a minute looks bad if the condition just holds: P(X > np), n >= _FEW
_FEW_TRUTHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Evidence about a condition. `value` and `bound` are in the condition's own unit; `e_value` is the evidence
    against the candidate, which fails at `limit`.
    """

    condition: Name
    outcome: Outcome
    value: float | None
    bound: float | None
    e_value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The next step of a trial, and its reason. To advance from the last stage is to promote."""

    action: Action
    reason: str


def step(trial: Trial, tally: Tally, found: Sequence[Verdict], now: float) -> Step:
    """Return the step that follows from the verdicts. A paused trial may still be rolled back."""
    failed = [_failure(verdict) for verdict in found if verdict.outcome == "failed"]
    if reasons := [*_hard_stops(trial, tally), *failed]:
        return Step(action="roll_back", reason=reasons[0])
    lacking = _lacking(trial, tally, now)
    if trial.state == "paused":
        return Step(action="wait", reason=f"paused: {trial.reason}")
    if not seconds_left(trial, now) and not samples_left(trial, tally):
        return _at_end(trial, tally, found)
    if trial.decide_by is not None and now >= trial.decide_by:
        return Step(action=trial.when_undecided, reason=f"undecided when its longest time was over: {lacking}")
    return Step(action="wait", reason=lacking)


def _at_end(trial: Trial, tally: Tally, found: Sequence[Verdict]) -> Step:
    """Return the step at the end of a stage in which nothing has failed."""
    place = f"stage {trial.stage + 1} of {len(trial.stages)}"
    if undecided := [f"{verdict.condition}: {verdict.detail}" for verdict in found if verdict.outcome == "undecided"]:
        return Step(action=trial.when_undecided, reason=f"undecided at the end of {place}: {'; '.join(undecided)}")
    samples = tally.total(trial.stage, arm_of(trial.now)).samples
    return Step(
        action="advance", reason=f"{place} is complete: {samples} samples of the candidate, and no condition failed"
    )


def seconds_left(trial: Trial, now: float) -> float:
    """Return how long the stage lasts at least."""
    return max(0.0, trial.now.for_s - trial.spent_s(now))


def samples_left(trial: Trial, tally: Tally) -> int:
    """Return how many samples of the candidate the stage needs at least."""
    return max(0, trial.now.samples - tally.total(trial.stage, arm_of(trial.now)).samples)


def arm_of(stage: Stage) -> Arm:
    """Return the arm that the candidate's answers are counted in."""
    return "shadow" if stage.shadow else "candidate"


def verdicts(trial: Trial, tally: Tally) -> Sequence[Verdict]:
    """Return the evidence about each condition of a trial in its stage."""
    asked = trial.conditions
    found = []
    if asked.errors is not None:
        found.append(_errors(trial, tally, asked.errors.alpha))
    if asked.agreement is not None:
        found.append(_agreement(trial, tally, asked.agreement.at_least))
    if asked.latency is not None:
        found.append(_latency(trial, tally, asked.latency.p95_at_most_ms))
    if asked.accuracy is not None:
        found.append(_accuracy(trial, tally, asked.accuracy.alpha))
    return found


def share_of_errors(stage: Stage) -> float:
    """Return the probability that a key with an error is the candidate's, if both versions are equal.

    A shadow computes its share of live's requests again: its errors come on top.
    """
    return stage.shadow / (1 + stage.shadow) if stage.shadow else stage.share


def _errors(trial: Trial, tally: Tally, alpha: float) -> Verdict:
    logarithms, candidate, total = [], 0, 0
    for number, stage in enumerate(trial.stages):
        keys = tally.keys.get(number, Keys())
        candidate, total = candidate + keys.candidate, total + keys.candidate + keys.live
        logarithms.append(float(log_evidence(keys.candidate, keys.candidate + keys.live, share_of_errors(stage))))
    value, most = e_value(logarithms), limit(alpha)
    traffic = tally.total(trial.stage, arm_of(trial.now)).requests
    outcome: Outcome = "failed" if value >= most else "passed" if traffic else "undecided"
    keys_had = f"keys with an error of one version only: {candidate} of the candidate, {total - candidate} of live"
    detail = keys_had if traffic or total else "the candidate has had no request in this stage"
    return Verdict(
        condition="errors",
        outcome=outcome,
        value=float(candidate),
        bound=None,
        e_value=value,
        limit=most,
        detail=detail,
    )


def _agreement(trial: Trial, tally: Tally, at_least: float) -> Verdict:
    counts = tally.total(trial.stage, "shadow")
    pairs = counts.agreed + counts.differed
    share = counts.agreed / pairs if pairs else None
    minutes = [one for one in tally.of_minutes(trial.stage, "shadow") if one.agreed + one.differed >= _FEW]
    bad = sum(one.agreed < at_least * (one.agreed + one.differed) for one in minutes)
    return _by_minutes(
        "agreement",
        judged=bool(trial.now.shadow),
        value=share,
        bound=at_least,
        holds=share is not None and share >= at_least,
        bad=bad,
        minutes=len(minutes),
        detail="no sample was answered by both versions"
        if share is None
        else f"{share:.4g} of {pairs} samples were answered alike, at least {at_least:g} is asked for",
    )


def _latency(trial: Trial, tally: Tally, at_most_ms: float) -> Verdict:
    counts = tally.total(trial.stage, "candidate").latency
    p95 = quantile(counts, SECONDS, _P95)
    minutes = [one for one in tally.of_minutes(trial.stage, "candidate") if sum(one.latency) >= _FEW]
    bad = sum(above(one.latency, SECONDS, at_most_ms / 1000) > (1 - _P95) * sum(one.latency) for one in minutes)
    return _by_minutes(
        "latency",
        judged=not trial.now.shadow,
        value=None if p95 is None else p95 * 1000,
        bound=at_most_ms,
        holds=p95 is not None and p95 * 1000 <= at_most_ms,
        bad=bad,
        minutes=len(minutes),
        detail="the candidate has answered no request in this stage"
        if p95 is None
        else f"p95 of the candidate is {p95 * 1000:.3g} ms, at most {at_most_ms:g} ms is asked for",
    )


def _by_minutes(
    name: Name,
    *,
    judged: bool,
    value: float | None,
    bound: float,
    holds: bool,
    bad: int,
    minutes: int,
    detail: str,
) -> Verdict:
    """Return the verdict of a test over minutes; `holds`: the whole stage fulfils the condition."""
    evidence, most = e_of(bad, minutes, _UNLUCKY), limit(ALPHA)
    outcome: Outcome = "failed" if evidence >= most else "passed" if holds else "undecided"
    return Verdict(
        condition=name,
        outcome=outcome if judged else "not judged",
        value=value,
        bound=bound,
        e_value=evidence,
        limit=most,
        detail=f"{detail}; {bad} of {minutes} minutes did not meet this" if judged else "not judged in this stage",
    )


def _accuracy(trial: Trial, tally: Tally, alpha: float) -> Verdict:
    live, candidate = tally.better.get("live", 0), tally.better.get("candidate", 0)
    known = live + candidate + tally.better.get("neither", 0)
    value, most = e_of(live, live + candidate), limit(alpha)
    agreed = sum(tally.total(number, "shadow").agreed for number in range(len(trial.stages)))
    decided = known >= _FEW_TRUTHS if tally.differing else agreed > 0
    outcome: Outcome = "failed" if value >= most else "passed" if decided else "undecided"
    return Verdict(
        condition="accuracy",
        outcome=outcome,
        value=float(candidate - live),
        bound=None,
        e_value=value,
        limit=most,
        detail=f"the truth of {known} of {tally.differing} differing samples is known: live alone is right in {live}, "
        f"the candidate alone in {candidate}",
    )


def _hard_stops(trial: Trial, tally: Tally) -> Sequence[str]:
    """Return why a trial must end at once."""
    counts = [tally.total(number, arm_of(stage)).not_finite for number, stage in enumerate(trial.stages)]
    values = [f"not finite: {sum(counts)} values of the candidate were NaN or infinite"] if any(counts) else []
    return [*tally.faults, *values]


def _failure(verdict: Verdict) -> str:
    reason = f"{verdict.condition}: {verdict.detail}"
    if verdict.e_value is None or verdict.limit is None:
        return reason
    return f"{reason} (evidence {verdict.e_value:.3g}, limit {verdict.limit:g})"


def _lacking(trial: Trial, tally: Tally, now: float) -> str:
    seconds, samples = seconds_left(trial, now), samples_left(trial, tally)
    needs = [_lasting(seconds)] if seconds else []
    if samples:
        needs.append(f"{samples} {'sample' if samples == 1 else 'samples'} of the candidate")
    return f"stage {trial.stage + 1} of {len(trial.stages)} still needs {' and '.join(needs)}"


def _lasting(seconds: float) -> str:
    """Say a duration by its two largest units: 595 -> "9 min 55 s"."""
    left = max(1, round(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
