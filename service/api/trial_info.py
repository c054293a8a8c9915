"""A trial with its evidence, as responses describe it."""

from collections.abc import Sequence
from dataclasses import asdict

from service.api.durations import duration_of
from service.api.trial_schemas import (
    ArmInfo,
    ConditionEvidence,
    ConditionsInfo,
    DifferenceInfo,
    Evidence,
    LatencyInfo,
    StageEvidence,
    StageInfo,
    TrialInfo,
)
from service.delivery.evidence import quantile
from service.delivery.trial_rule import arm_of, samples_left, seconds_left, step, verdicts
from service.delivery.trial_tally import Keys, Tallies, Tally
from service.delivery.trials import Arm, Conditions, Stage, Trial, Trials
from service.telemetry.metrics import SECONDS

_MOST_DIFFERENCES = 20


def info(trial: Trial, trials: Trials, tallies: Tallies, now: float, waiting_for: Sequence[str] = ()) -> TrialInfo:
    """Return a trial with its evidence. Raises StoreUnavailable."""
    tally = tallies.of(trial)
    return TrialInfo(
        id=trial.id,
        model=trial.model,
        version=trial.version,
        live=trial.live,
        state=trial.state,
        stage=trial.stage,
        stages=[_stage(stage) for stage in trial.stages],
        share=trial.share,
        shadow=trial.shadow,
        key_header=trial.key_header,
        conditions=_conditions(trial.conditions),
        when_undecided=trial.when_undecided,
        max=None if trial.max_s is None else duration_of(trial.max_s),
        opened_at=trial.opened_at,
        stage_since=trial.stage_since,
        finished_at=trial.finished_at,
        by=trial.by,
        job=trial.job,
        reason=trial.reason,
        evidence=_evidence(trial, trials, tally, now),
        waiting_for=list(waiting_for),
    )


def _evidence(trial: Trial, trials: Trials, tally: Tally, now: float) -> Evidence:
    found = verdicts(trial, tally)
    return Evidence(
        stages=[_of_stage(number, trial.stages[number], tally) for number in range(trial.stage + 1)],
        conditions=[ConditionEvidence(**asdict(verdict)) for verdict in found],
        seconds_left=seconds_left(trial, now) if trial.is_open else 0.0,
        samples_left=samples_left(trial, tally) if trial.is_open else 0,
        next=step(trial, tally, found, now).reason if trial.is_open else trial.reason,
        differences=[
            DifferenceInfo(
                id=one.prediction, index=one.index, at=one.at, live=one.live, candidate=one.candidate, better=one.better
            )
            for one in trials.differences(trial.id, _MOST_DIFFERENCES)
        ],
    )


def _of_stage(number: int, stage: Stage, tally: Tally) -> StageEvidence:
    arms: tuple[Arm, Arm] = ("live", arm_of(stage))
    keys = tally.keys.get(number, Keys())
    had = {arms[0]: keys.live, arms[1]: keys.candidate}
    shadow = tally.total(number, "shadow")
    return StageEvidence(
        stage=number,
        arms={arm: _arm(number, arm, had[arm], tally) for arm in arms},
        agreed=shadow.agreed,
        differed=shadow.differed,
    )


def _arm(number: int, arm: Arm, keys: int, tally: Tally) -> ArmInfo:
    counts = tally.total(number, arm)
    found = [quantile(counts.latency, SECONDS, share) for share in (0.5, 0.95, 0.99)]
    p50, p95, p99 = (None if one is None else round(one * 1000, 3) for one in found)
    return ArmInfo(
        requests=counts.requests,
        samples=counts.samples,
        errors=counts.errors,
        keys=keys,
        not_finite=counts.not_finite,
        dropped=counts.dropped,
        latency_ms=None if p50 is None or p95 is None or p99 is None else LatencyInfo(p50=p50, p95=p95, p99=p99),
    )


def _stage(stage: Stage) -> StageInfo:
    return StageInfo(
        shadow=stage.shadow or None,
        share=stage.share or None,
        duration=duration_of(stage.for_s),
        samples=stage.samples,
    )


def _conditions(asked: Conditions) -> ConditionsInfo:
    latency = None if asked.latency is None else {"p95_at_most": asked.latency.p95_at_most_ms}
    stored = {name: bound for name, bound in asdict(asked).items() if name != "latency"}
    return ConditionsInfo.model_validate({**stored, "latency": latency})
