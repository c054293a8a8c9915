"""Verdicts on the conditions of a trial, and the steps that follow."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from service.delivery.trial_rule import Name, Verdict, samples_left, seconds_left, share_of_errors, step, verdicts
from service.delivery.trial_tally import Keys, Minute, Tally
from service.delivery.trials import Accuracy, Agreement, Conditions, Counts, Errors, Latency, Stage, Trial
from service.telemetry.metrics import SECONDS
from tests.trials import CANARY, SHADOW, trial_of

ENOUGH = Counts(requests=500, samples=500, agreed=500)
FAST = (0,) * 7 + (30,)  # within 25 ms
SLOW = (0,) * 11 + (30,)  # 250 to 500 ms


def in_canary(**values: Any) -> Trial:
    return trial_of(SHADOW, CANARY, **{"stage": 1, "state": "canary", **values})


def judged(trial: Trial, tally: Tally) -> Mapping[Name, Verdict]:
    return {verdict.condition: verdict for verdict in verdicts(trial, tally)}


def do(trial: Trial, tally: Tally, now: float = 600.0) -> tuple[str, str]:
    found = step(trial, tally, verdicts(trial, tally), now)
    return found.action, found.reason


def shadowed(**counts: Any) -> Tally:
    return Tally(minutes={(0, 0, "shadow"): Counts(requests=1, **counts)})


def each_minute(stage: int, counts: Counts, minutes: int) -> dict[Minute, Counts]:
    return {
        (stage, minute, "shadow" if counts.agreed or counts.differed else "candidate"): counts
        for minute in range(minutes)
    }


def test_a_stage_ends_when_both_time_and_samples_are_reached() -> None:
    trial = trial_of()
    assert do(trial, shadowed(samples=500), now=599)[0] == "wait"
    assert do(trial, shadowed(samples=499))[0] == "wait"
    assert do(trial, shadowed(samples=500))[0] == "advance"
    assert (seconds_left(trial, 590), samples_left(trial, shadowed(samples=20))) == (10, 480)


def test_no_traffic_is_no_verdict_however_long_it_lasts() -> None:
    trial = trial_of()
    assert do(trial, Tally(), now=1e9) == ("wait", "stage 1 of 2 still needs 500 samples of the candidate")
    assert judged(trial, Tally())["errors"].outcome == "undecided"


def test_samples_of_live_do_not_fulfil_a_stage() -> None:
    assert do(trial_of(), Tally(minutes={(0, 0, "live"): ENOUGH}))[0] == "wait"


def test_the_time_of_a_pause_does_not_count() -> None:
    paused = trial_of(state="paused", elapsed_s=200.0)
    assert do(paused, shadowed(samples=500), now=1e6)[0] == "wait"
    resumed = trial_of(elapsed_s=200.0, stage_since=1000.0)
    assert do(resumed, shadowed(samples=500), now=1399)[0] == "wait"
    assert do(resumed, shadowed(samples=500), now=1400)[0] == "advance"


def test_keys_with_errors_of_all_stages_roll_back_together() -> None:
    trial = in_canary()
    traffic: Mapping[Minute, Counts] = {(1, 0, "candidate"): Counts(requests=9, samples=9)}
    mild = Tally(minutes=traffic, keys={1: Keys(candidate=2)})
    assert judged(trial, mild)["errors"].outcome == "passed"
    both = Tally(minutes=traffic, keys={0: Keys(candidate=4), 1: Keys(candidate=2)})
    assert judged(trial, both)["errors"].outcome == "failed"
    action, reason = do(trial, both, now=1)
    assert action == "roll_back"
    assert reason.startswith("errors: keys with an error of one version only: 6 of the candidate, 0 of live ")


def test_many_errors_of_both_versions_are_none_of_the_candidate() -> None:
    assert judged(in_canary(), Tally(keys={1: Keys(candidate=30, live=270)}))["errors"].outcome == "undecided"


def test_a_condition_that_is_not_asked_for_is_not_judged() -> None:
    trial = in_canary(conditions=Conditions())
    assert do(trial, Tally(keys={1: Keys(candidate=99)}))[0] == "wait"


@pytest.mark.parametrize(
    ("counts", "minutes", "outcome"),
    [
        (Counts(), 1, "undecided"),
        (Counts(agreed=99, differed=1), 1, "passed"),
        (Counts(agreed=90, differed=10), 1, "undecided"),
        (Counts(agreed=90, differed=10), 14, "undecided"),
        (Counts(agreed=90, differed=10), 15, "failed"),
        (Counts(agreed=9, differed=10), 60, "undecided"),  # too few of a minute
    ],
)
def test_agreement_fails_after_minutes_and_not_by_a_burst(counts: Counts, minutes: int, outcome: str) -> None:
    trial = trial_of(conditions=Conditions(agreement=Agreement(at_least=0.98)))
    assert judged(trial, Tally(minutes=each_minute(0, counts, minutes)))["agreement"].outcome == outcome


@pytest.mark.parametrize(
    ("latency", "minutes", "outcome"),
    [((), 1, "undecided"), (FAST, 1, "passed"), (SLOW, 1, "undecided"), (SLOW, 15, "failed"), (FAST, 15, "passed")],
)
def test_latency_is_judged_by_minutes_of_a_canary(latency: tuple[int, ...], minutes: int, outcome: str) -> None:
    asked = Conditions(latency=Latency(p95_at_most_ms=50))
    tally = Tally(minutes=each_minute(1, Counts(latency=latency), minutes))
    assert judged(in_canary(conditions=asked), tally)["latency"].outcome == outcome
    assert judged(trial_of(conditions=asked), tally)["latency"].outcome == "not judged"


@pytest.mark.parametrize(
    ("differing", "better", "outcome"),
    [
        (0, {}, "passed"),  # the two agree everywhere
        (40, {}, "undecided"),
        (40, {"live": 3, "candidate": 4, "neither": 3}, "passed"),
        (40, {"live": 20, "candidate": 2}, "failed"),
        (40, {"live": 2, "candidate": 20}, "passed"),
        (40, {"live": 9}, "undecided"),
    ],
)
def test_accuracy_is_a_sign_test_of_pairs_with_a_truth(differing: int, better: Mapping[str, int], outcome: str) -> None:
    trial = trial_of(conditions=Conditions(accuracy=Accuracy(alpha=0.01)))
    minutes: Mapping[Minute, Counts] = {(0, 0, "shadow"): ENOUGH}
    found = judged(trial, Tally(minutes=minutes, differing=differing, better=better))["accuracy"]
    assert found.outcome == outcome
    assert found.value == better.get("candidate", 0) - better.get("live", 0)


@pytest.mark.parametrize("choice", ["pause", "roll_back"])
def test_an_undecided_stage_ends_as_the_trial_was_opened_with(choice: str) -> None:
    trial = trial_of(conditions=Conditions(agreement=Agreement(at_least=0.98)), when_undecided=choice)
    action, reason = do(trial, shadowed(samples=500, agreed=90, differed=10))
    assert action == choice
    assert reason.startswith("undecided at the end of stage 1 of 2: agreement: 0.9 of 100 samples")


def test_a_trial_ends_undecided_after_its_longest_duration() -> None:
    trial = trial_of(max_s=3600.0, decide_by=3600.0)
    assert do(trial, Tally(), now=3599)[0] == "wait"
    assert do(trial, Tally(), now=3600) == (
        "pause",
        "undecided when its longest time was over: stage 1 of 2 still needs 500 samples of the candidate",
    )


@pytest.mark.parametrize("state", ["canary", "paused"])
def test_faults_and_values_that_are_not_finite_end_it_at_once(state: str) -> None:
    trial = in_canary(state=state)
    assert do(trial, Tally(faults=["load: broken"]), now=0) == ("roll_back", "load: broken")
    for place in ((0, 0, "shadow"), (1, 0, "candidate")):
        minutes: Any = {place: Counts(not_finite=2)}
        assert do(trial, Tally(minutes=minutes), now=0) == (
            "roll_back",
            "not finite: 2 values of the candidate were NaN or infinite",
        )
    live: Any = {(1, 0, "live"): Counts(not_finite=2)}
    assert do(trial, Tally(minutes=live), now=0)[0] == "wait"


def test_a_paused_canary_is_still_rolled_back_and_a_paused_trial_says_why_it_waits() -> None:
    paused = in_canary(state="paused", reason="a look at the log")
    assert do(paused, Tally(), now=1e6) == ("wait", "paused: a look at the log")
    assert do(paused, Tally(keys={1: Keys(candidate=5)}), now=1e6)[0] == "roll_back"


def test_a_failed_condition_comes_before_the_end_of_the_stage() -> None:
    trial = replace(in_canary(), conditions=Conditions(errors=Errors(alpha=0.01)))
    minutes: Mapping[Minute, Counts] = {(1, 0, "candidate"): ENOUGH}
    assert do(trial, Tally(minutes=minutes, keys={1: Keys(candidate=5)}))[0] == "roll_back"
    assert do(trial, Tally(minutes=minutes))[0] == "advance"


def test_a_trial_answers_its_share_of_the_stage_while_it_is_open() -> None:
    assert (in_canary().share, in_canary(state="paused").share, in_canary(state="rolled_back").share) == (0.1, 0.1, 0)
    assert (trial_of().shadow, trial_of(state="paused").shadow, trial_of().share) == (1.0, 0, 0)
    assert Stage(share=0.1, for_s=1, samples=1).state == "canary"


def test_a_key_with_an_error_is_the_candidates_by_its_share_of_the_requests() -> None:
    stages = Stage(shadow=1.0, for_s=1, samples=1), Stage(shadow=0.25, for_s=1, samples=1), CANARY
    assert [share_of_errors(stage) for stage in stages] == [0.5, 0.2, 0.1]


def test_the_evidence_on_errors_says_what_it_comes_from() -> None:
    keys = {0: Keys(candidate=1, live=2), 1: Keys(candidate=1, live=1)}
    traffic: Mapping[Minute, Counts] = {(1, 0, "candidate"): Counts(requests=1)}
    for minutes in (traffic, {}):  # without a request in this stage, the keys of earlier ones are said all the same
        found = judged(in_canary(), Tally(minutes=minutes, keys=keys))["errors"]
        assert found.detail == "keys with an error of one version only: 2 of the candidate, 3 of live"
    assert judged(in_canary(), Tally(minutes=traffic))["errors"].detail.startswith(
        "keys with an error of one version only: 0 of the candidate"
    )
    assert judged(in_canary(), Tally())["errors"].detail == "the candidate has had no request in this stage"


def surety(evidence: float | None) -> float:
    """The alpha whose limit is that evidence."""
    assert evidence
    near = 1 / evidence
    return next(alpha for alpha in (near, math.nextafter(near, 0), math.nextafter(near, 1)) if 1 / alpha == evidence)


@pytest.mark.parametrize(
    ("name", "tally"),
    [("errors", Tally(keys={0: Keys(candidate=4)})), ("accuracy", Tally(differing=40, better={"live": 9}))],
)
def test_evidence_that_reaches_the_limit_decides(name: Name, tally: Tally) -> None:
    def at(alpha: float) -> Verdict:
        asked = Conditions(errors=Errors(alpha=alpha), accuracy=Accuracy(alpha=alpha))
        return judged(trial_of(SHADOW, conditions=asked), tally)[name]

    exactly = surety(at(0.01).e_value)
    assert (at(exactly).outcome, at(exactly * 0.999).outcome) == ("failed", "undecided")


def bad_minutes(found: Verdict) -> str:
    return found.detail.rpartition("; ")[2].removesuffix(" did not meet this")


@pytest.mark.parametrize(
    ("counts", "bad"),
    [
        (Counts(agreed=18, differed=2), "0 of 1 minutes"),  # 0.9 is asked for
        (Counts(agreed=17, differed=3), "1 of 1 minutes"),
        (Counts(agreed=10, differed=10), "1 of 1 minutes"),
        (Counts(agreed=9, differed=10), "0 of 0 minutes"),
    ],
)
def test_a_minute_of_twenty_samples_is_a_case_of_agreement(counts: Counts, bad: str) -> None:
    trial = trial_of(conditions=Conditions(agreement=Agreement(at_least=0.9)))
    found = judged(trial, Tally(minutes={(0, 0, "shadow"): counts}))["agreement"]
    assert bad_minutes(found) == bad
    assert found.outcome == ("passed" if counts.differed == 2 else "undecided")


def in_buckets(fast: int, slow: int) -> tuple[int, ...]:
    """Of requests that took at most 25 ms, and 25 to 50 ms."""
    buckets = [0] * (len(SECONDS) + 1)
    buckets[SECONDS.index(0.025)], buckets[SECONDS.index(0.05)] = fast, slow
    return tuple(buckets)


@pytest.mark.parametrize(
    ("latency", "bad", "outcome"),
    [
        (in_buckets(19, 1), "0 of 1 minutes", "passed"),  # 95% within 25 ms
        (in_buckets(18, 2), "1 of 1 minutes", "undecided"),
        (in_buckets(180, 12), "1 of 1 minutes", "undecided"),
        (in_buckets(184, 9), "0 of 1 minutes", "passed"),
        (in_buckets(9, 10), "0 of 0 minutes", "undecided"),
    ],
)
def test_a_minute_of_twenty_requests_is_a_case_of_latency(latency: tuple[int, ...], bad: str, outcome: str) -> None:
    trial = in_canary(conditions=Conditions(latency=Latency(p95_at_most_ms=25)))
    found = judged(trial, Tally(minutes={(1, 0, "candidate"): Counts(latency=latency)}))["latency"]
    assert (bad_minutes(found), found.outcome) == (bad, outcome)


def test_latency_is_said_in_milliseconds() -> None:
    asked = Conditions(latency=Latency(p95_at_most_ms=25))
    minutes: Mapping[Minute, Counts] = {(1, 0, "candidate"): Counts(latency=in_buckets(19, 1))}
    found = judged(in_canary(conditions=asked), Tally(minutes=minutes))["latency"]
    assert (found.value, found.bound) == (25.0, 25)
    assert found.detail.startswith("p95 of the candidate is 25 ms, at most 25 ms is asked for; ")
    assert judged(in_canary(conditions=asked), Tally())["latency"].detail.startswith("the candidate has answered no")
    assert judged(trial_of(conditions=asked), Tally())["latency"].detail == "not judged in this stage"


def test_accuracy_without_a_compared_sample_is_no_verdict() -> None:
    trial = trial_of(conditions=Conditions(accuracy=Accuracy(alpha=0.01)))
    assert judged(trial, Tally())["accuracy"].outcome == "undecided"
    one: Mapping[Minute, Counts] = {(0, 0, "shadow"): Counts(agreed=1)}
    assert judged(trial, Tally(minutes=one))["accuracy"].outcome == "passed"


def test_samples_compared_in_an_earlier_shadow_are_enough_for_accuracy_in_a_canary() -> None:
    trial = in_canary(conditions=Conditions(accuracy=Accuracy(alpha=0.01)))
    one: Mapping[Minute, Counts] = {(0, 0, "shadow"): Counts(agreed=1)}
    assert judged(trial, Tally(minutes=one))["accuracy"].outcome == "passed"


def test_the_gravest_reason_is_said_a_fault_before_numbers_before_a_failed_condition() -> None:
    keys = {0: Keys(candidate=30)}
    broken = Tally(minutes={(0, 0, "shadow"): Counts(requests=30, not_finite=2)}, keys=keys)
    assert do(trial_of(), broken) == ("roll_back", "not finite: 2 values of the candidate were NaN or infinite")
    faulty = Tally(minutes=broken.minutes, keys=keys, faults=["memory: it ran out of memory"])
    assert do(trial_of(), faulty) == ("roll_back", "memory: it ran out of memory")


def test_the_reason_of_a_rollback_has_the_evidence() -> None:
    action, reason = do(trial_of(), Tally(keys={0: Keys(candidate=30)}))
    assert action == "roll_back"
    assert re.fullmatch(
        r"errors: keys with an error of one version only: 30 of the candidate, 0 of live "
        r"\(evidence [\d.e+]+, limit 100\)",
        reason,
    )


@pytest.mark.parametrize(
    ("now", "samples", "needs"),
    [
        (5, 360, "9 min 55 s and 140 samples of the candidate"),
        (540, 499, "1 min and 1 sample of the candidate"),
        (599.8, 500, "1 s"),
    ],
)
def test_what_a_stage_needs_is_said_in_words(now: float, samples: int, needs: str) -> None:
    assert do(trial_of(), shadowed(samples=samples), now=now) == ("wait", f"stage 1 of 2 still needs {needs}")


def test_a_long_stage_needs_days_and_hours() -> None:
    trial = trial_of(Stage(shadow=1.0, for_s=180_030.0, samples=1))
    assert do(trial, shadowed(samples=1), now=0) == ("wait", "stage 1 of 1 still needs 2 d 2 h")
