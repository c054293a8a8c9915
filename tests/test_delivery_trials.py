"""The tables of trials: transitions, tallies, and what a promotion by hand does, on both databases."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from service.delivery.registry import Registry
from service.delivery.trial_tally import Keys, Tallies
from service.delivery.trials import DEFAULT_STAGES, Counts, Opening, Overtaken, Stage, Trial, Trials
from service.errors import Conflict, NotFound
from service.store.database import Store
from service.store.tables import promotions
from service.upkeep.pruner import Pruner
from service.upkeep.rules import Rules
from tests.trials import CANARY, SHADOW, count, differ, err, opened, register, written_counts

BY: dict[str, Any] = {"by": "anyone", "reason": "because"}


@contextmanager
def queries() -> Iterator[Counter[str]]:
    """Count the queries of all engines by their table."""
    counted: Counter[str] = Counter()

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "FROM " in statement:
            counted[statement.replace("\n", "").split("FROM ")[1].split()[0]] += 1

    event.listen(Engine, "before_cursor_execute", note)
    yield counted
    event.remove(Engine, "before_cursor_execute", note)


def changes(trials: Trials, trial: Trial) -> list[tuple[str, int, str]]:
    return [(one.data["state"], one.data["stage"], one.data["reason"]) for one in trials.events(trial.id)]


def test_a_trial_is_read_as_it_was_opened(store: Store) -> None:
    trial = opened(store, key_header="x-user", max_s=60.0, now=5.0)
    trials = Trials(store)
    assert trials.get(trial.id) == trial == trials.of("line")
    assert (trial.version, trial.live, trial.stages, trial.decide_by) == (2, 1, (SHADOW, CANARY), 65.0)
    assert list(trials.open()) == [trial]
    assert Opening(model="line", version=1).stages == DEFAULT_STAGES
    with pytest.raises(NotFound, match="unknown trial"):
        trials.get("nothing\0")


def test_a_trial_needs_another_version_than_live_and_one_that_is_there(store: Store) -> None:
    trials = Trials(store)

    def begin(version: int) -> Trial:
        return trials.begin(Opening(model="line", version=version), by="anyone", now=0)

    candidate = register(store)
    with pytest.raises(Conflict, match="nothing is live of line"):
        begin(candidate)
    live = register(store, live=True)
    with pytest.raises(Conflict, match="is live already"):
        begin(live)
    for number in (99, 0, 2**40):
        with pytest.raises(NotFound, match=f"line has no version {number}"):
            begin(number)
    first = begin(candidate)
    with pytest.raises(Conflict, match=f"trial {first.id} of version 1 of line is open"):
        begin(register(store))
    assert trials.open() == [first]


def test_a_trial_goes_through_its_stages_and_ends_promoted(store: Store) -> None:
    trials, trial = Trials(store), opened(store)
    trial = trials.advance(trial, **BY, now=10)
    assert (trial.state, trial.stage, trial.stage_since, trial.elapsed_s, trial.share) == ("canary", 1, 10, 0, 0.1)
    trial = trials.pause(trial, **BY, now=40)
    assert (trial.state, trial.share, trial.spent_s(1000)) == ("paused", 0.1, 30)
    trial = trials.resume(trial, **BY, now=100)
    assert (trial.state, trial.spent_s(110)) == ("canary", 40)
    assert trials.promote(trial, **BY, now=200) == 1
    ended = trials.get(trial.id)
    assert (ended.state, ended.finished_at, ended.share, ended.is_open) == ("promoted", 200, 0, False)
    assert Registry(store).live_version("line") == 2
    last = Registry(store).history("line")[-1]
    assert (last.action, last.by, last.reason) == ("promote", f"trial {trial.id}", "because")
    assert [state for state, *_ in changes(trials, trial)] == ["shadow", "canary", "paused", "canary", "promoted"]
    assert trials.open() == []


def test_a_stage_that_ended_undecided_lasts_its_time_again_when_it_is_resumed(store: Store) -> None:
    trials, trial = Trials(store), opened(store, max_s=5000.0)
    paused = trials.pause(trial, **BY, now=CANARY.for_s + 1)
    resumed = trials.resume(paused, **BY, now=4000)
    assert (resumed.spent_s(4001), resumed.decide_by) == (1, 9000)


def test_a_paused_trial_that_is_advanced_has_its_longest_duration_anew(store: Store) -> None:
    trials, trial = Trials(store), opened(store, max_s=100.0)
    advanced = trials.advance(trials.pause(trial, **BY, now=101), **BY, now=400)
    assert (advanced.stage, advanced.decide_by) == (1, 500)  # or it would be paused again at once
    trials.abort(advanced, **BY, now=401)
    going = trials.advance(opened(store, now=500, max_s=100.0), **BY, now=550)
    assert (going.stage, going.decide_by) == (1, 600)


@pytest.mark.parametrize(("end", "state"), [(Trials.roll_back, "rolled_back"), (Trials.abort, "aborted")])
def test_the_other_ends_leave_live_alone_and_make_room(store: Store, end: Callable[..., Trial], state: str) -> None:
    trials, trial = Trials(store), opened(store)
    ended = end(trials, trial, **BY, now=9)
    assert (ended.state, ended.finished_at) == (state, 9)
    assert Registry(store).live_version("line") == 1
    assert opened(store, now=10).version == 3
    assert trials.get(trial.id) == ended


def test_a_transition_of_a_trial_that_has_moved_on_changes_nothing(store: Store) -> None:
    trials, trial = Trials(store), opened(store, CANARY)
    trials.pause(trial, **BY, now=1)
    before = trials.events(trial.id)
    for move in (trials.pause, trials.roll_back, trials.abort, trials.promote):
        with pytest.raises(Overtaken):
            move(trial, **BY, now=2)
    assert trials.events(trial.id) == before
    assert Registry(store).live_version("line") == 1


def test_the_promotion_and_the_end_of_the_trial_are_one_transaction(store: Store, monkeypatch: Any) -> None:
    trials, trial = Trials(store), opened(store, CANARY)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "promote", killed)
        with pytest.raises(KeyboardInterrupt):
            trials.promote(trial, **BY, now=2)
    assert trials.get(trial.id) == trial
    assert Registry(store).live_version("line") == 1
    assert trials.promote(trial, **BY, now=3) == 1


def test_a_promotion_or_rollback_by_hand_aborts_it_in_the_same_transaction(store: Store) -> None:
    trials, registry, trial = Trials(store), Registry(store), opened(store)
    other = register(store)
    with store.write() as connection:
        registry.promote(connection, "line", 1, by="admin", reason="by hand", now=4)  # it is live already
    assert trials.get(trial.id).is_open
    with store.write() as connection:
        registry.promote(connection, "line", other, by="admin", reason="by hand", now=5)
    assert (trials.get(trial.id).state, trials.get(trial.id).reason) == ("aborted", "version 3 was promoted: by hand")
    second = opened(store, now=6)
    with store.write() as connection:
        registry.rollback(connection, "line", by="admin", reason="by hand", now=7)
    assert trials.get(second.id).reason == "version 1 was made live again: by hand"
    assert trials.events(second.id)[-1].data["by"] == "admin"


def test_another_models_promotion_leaves_it_alone(store: Store) -> None:
    trial = opened(store)
    register(store, "other", live=True)
    assert Trials(store).get(trial.id).is_open


def test_a_look_without_changes_reads_one_number(store: Store) -> None:
    trials, trial = Trials(store), opened(store)
    assert trials.open() == [trial]
    with queries() as counted:
        assert trials.open() == [trial]
    assert counted == {"trial_events": 1}
    moved = Trials(store).advance(trial, **BY, now=1)
    assert trials.open() == [moved]


def test_a_fault_is_noted_once_a_stage_and_ends_the_trial(store: Store) -> None:
    trials, trial = Trials(store), opened(store)
    for kind, detail in (("load", "broken"), ("load", "again"), ("memory", "none left")):
        trials.note_fault(trial, kind, detail, now=1)  # type: ignore[arg-type]
    assert list(Tallies(store).of(trial).faults) == ["load: broken", "memory: none left"]
    trials.abort(trial, **BY, now=2)
    trials.note_fault(trial, "not finite", "too late", now=3)
    assert [one.kind for one in trials.events(trial.id)] == ["state", "fault", "fault", "state"]
    assert trials.events(trial.id)[-1].is_last


def test_counts_of_all_processes_are_added_up_and_new_ones_seen(store: Store) -> None:
    trial, tallies = opened(store), Tallies(store, monotonic=lambda: 0.0)
    few = Counts(requests=1, samples=2, latency=(1, 1))
    count(trial, store, "live", few, process="a")
    count(trial, store, "live", few, process="b")
    count(trial, store, "shadow", Counts(samples=3), minute=1)
    tally = tallies.of(trial)
    assert tally.total(0, "live") == Counts(requests=2, samples=4, latency=(2, 2))
    assert tally.total(0, "shadow").samples == 3
    count(trial, store, "shadow", Counts(samples=4), minute=2)
    assert tallies.of(trial).total(0, "shadow").samples == 7
    assert [one.samples for one in tallies.of(trial).of_minutes(0, "shadow")] == [3, 4]
    assert len(written_counts(store, trial.id)) == 4


def test_late_counts_of_an_old_minute_are_seen_within_a_minute(store: Store) -> None:
    trial, now = opened(store), [0.0]
    tallies = Tallies(store, monotonic=lambda: now[0])
    count(trial, store, "live", Counts(requests=1), minute=50)
    assert tallies.of(trial).total(0, "live").requests == 1
    count(trial, store, "live", Counts(requests=1), minute=3)
    assert tallies.of(trial).total(0, "live").requests == 1
    now[0] = 60.0
    assert tallies.of(trial).total(0, "live").requests == 2


def test_a_key_counts_once_a_trial_and_not_if_both_versions_err_on_it(store: Store) -> None:
    canary = Stage(share=0.2, for_s=1, samples=1)
    trial = opened(store, SHADOW, CANARY, canary)
    err(trial, store, "live", [1, 2, 3])
    err(trial, store, "shadow", [1, 2, 4, 5])
    err(trial, store, "candidate", [7], stage=1)
    err(trial, store, "live", [8, 9], stage=1)
    err(trial, store, "candidate", [7, 8, 10], stage=2)  # 8 was live's when the share was smaller
    err(trial, store, "live", [9, 11, 2**62], stage=2)
    keys = Tallies(store).of(trial).keys
    assert keys == {0: Keys(candidate=2, live=1), 1: Keys(candidate=1, live=2), 2: Keys(candidate=1, live=2)}


def test_truths_of_differing_samples_are_noted_by_the_version_that_was_right(store: Store) -> None:
    trials, trial = Trials(store), opened(store)
    differ(trial, store, ["a", "b", "c", "d"])
    with store.write() as connection:
        for name, live, candidate in (("a", True, False), ("b", False, True), ("c", False, False)):
            assert trials.note_truth(connection, name, 0, live=live, candidate=candidate)
        assert not trials.note_truth(connection, "a", 1, live=True, candidate=False)
    tally = Tallies(store).of(trial)
    assert (tally.differing, tally.better) == (4, {"live": 1, "candidate": 1, "neither": 1})
    assert [one.better for one in trials.differences(trial.id, 3)] == ["live", "candidate", "neither"]


def test_the_steps_of_a_model_are_listed_until_a_time(store: Store) -> None:
    trials, trial = Trials(store), opened(store, now=1.0)
    trials.note_fault(trial, "load", "broken", now=2)
    trials.roll_back(trial, **BY, now=3)
    assert [one.data["state"] for one in trials.states("line")] == ["shadow", "rolled_back"]
    assert [one.data["state"] for one in trials.states("line", until=2.5)] == ["shadow"]
    assert trials.states("other") == []
    assert [one.id for one in trials.new_events(1, 9)] == [2, 3]
    assert trials.last_event() == 3


def test_prune_removes_the_evidence_of_trials_that_ended_long_ago_and_not_the_trials(store: Store) -> None:
    trials = Trials(store)
    old = opened(store, CANARY)
    count(old, store, "live", Counts(requests=1))
    err(old, store, "live", [1])
    differ(old, store, ["a"])
    trials.abort(old, **BY, now=100.0)
    young = opened(store, CANARY)
    count(young, store, "live", Counts(requests=1))
    trials.abort(young, **BY, now=86_400.0)
    Pruner(store, {}, Rules(), now=9e9).prune()
    assert Tallies(store).of(old).total(0, "live").requests == 1
    Pruner(store, {}, Rules(keep_jobs_days=1), now=2 * 86_400.0 - 1).prune()
    tally = Tallies(store).of(old)
    assert (tally.minutes, tally.keys, tally.differing) == ({}, {}, 0)
    assert Tallies(store).of(young).total(0, "live").requests == 1
    assert len(trials.events(old.id)) == 2


def test_prune_leaves_the_candidate_of_an_open_trial_and_the_version_beside_it(store: Store) -> None:
    trial = opened(store, CANARY)
    spare = [register(store) for _ in range(2)]

    def pruned(store: Store) -> list[int]:
        done = Pruner(store, {}, Rules(keep_versions=0), now=9.0).prune()
        return [version for _, version in done.versions]

    assert pruned(store) == spare
    Trials(store).abort(trial, **BY, now=1)
    assert pruned(store) == [trial.version]
    with pytest.raises(NotFound, match="was pruned"):
        Trials(store).begin(Opening(model="line", version=trial.version), by="anyone", now=2)
    with store.read() as connection:
        assert [row.version for row in connection.execute(select(promotions))] == [1]


def test_the_last_trial_is_the_one_begun_last_also_if_the_clock_was_set_back(store: Store) -> None:
    trials, first = Trials(store), opened(store, now=7200.0)
    assert first.spent_s(3600.0) == 0
    trials.abort(first, **BY, now=7300.0)
    second = trials.begin(Opening(model="line", version=first.version), by="anyone", now=3600.0)
    trials.abort(second, **BY, now=3700.0)
    found = trials.of("line")
    assert found is not None
    assert (found.id, found.opened_at) == (second.id, 3600.0)
