"""One leader judges the trials: exactly one verdict, no step lost, whatever happens to a leader. On both databases."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from service.delivery.registry import Registry
from service.delivery.trials import Accuracy, Conditions, Counts, Trial, Trials
from service.errors import Conflict, NotFound, ServiceError, StoreUnavailable
from service.store.database import Store
from service.store.tables import leaders
from tests.leading import Process, run, silent, states
from tests.trials import CANARY, SHADOW, count, differ, err, opened

ENOUGH = Counts(requests=500, samples=500)


@contextmanager
def away(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The database cannot be written."""

    def refuse(**_: Any) -> Any:
        raise StoreUnavailable("the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write", refuse)
        yield


def test_a_leader_takes_a_good_candidate_through_its_stages(store: Store) -> None:
    trial, one = opened(store), Process(store, "a")

    async def go() -> None:
        await one.look(1)
        assert one.shown("state", state="shadow") == 1
        count(trial, store, "shadow", ENOUGH)
        await one.look(599)
        assert states(store, trial) == ["shadow"]
        await one.look(600)
        moved = one.trials.get(trial.id)
        assert (moved.state, moved.stage_since) == ("canary", 600)
        count(moved, store, "candidate", ENOUGH)
        await one.look(1199)
        assert (one.shown("share"), one.shown("evidence", condition="errors", kind="limit")) == (0.1, 100)
        await one.look(1200)

    run(go)
    assert states(store, trial) == ["shadow", "canary", "promoted"]
    last = Registry(store).history("line")[-1]
    assert (last.version, last.by) == (2, f"trial {trial.id}")
    assert last.reason == "stage 2 of 2 is complete: 500 samples of the candidate, and no condition failed"


def test_a_bad_candidate_is_rolled_back_at_the_next_look(store: Store) -> None:
    trial, one = opened(store, CANARY), Process(store, "a")

    async def go() -> None:
        await one.look(1)
        err(trial, store, "candidate", range(4))
        await one.look(2)
        await one.look(3)
        assert (one.shown("state", state="rolled_back"), one.shown("share")) == (1, 0)
        assert one.shown("evidence", condition="errors", kind="limit") is None
        await one.look(2 + 3599)
        assert one.shown("state", state="rolled_back") == 1
        await one.look(2 + 3600)
        assert one.shown("state", state="rolled_back") is None

    run(go)
    ended = Trials(store).get(trial.id)
    assert states(store, trial) == ["canary", "rolled_back"]
    assert ended.reason.startswith("errors: keys with an error of one version only: 4 of the candidate")
    assert Registry(store).live_version("line") == 1


def test_truths_that_came_in_are_noted_before_the_trial_is_judged(store: Store) -> None:
    predictions = [f"p{number}" for number in range(20)]

    def note(trial: Trial) -> None:
        with store.write() as connection:
            for one in predictions:
                trials.note_truth(connection, one, 0, live=True, candidate=False)

    trials, one = Trials(store), Process(store, "a", note_truths=note)
    trial = opened(store, conditions=Conditions(accuracy=Accuracy(alpha=0.01)))
    differ(trial, store, predictions)
    run(lambda: one.look(1))
    assert trials.get(trial.id).reason.startswith("accuracy: the truth of 20 of 20 differing samples is known")
    other = opened(store, now=2)
    differ(other, store, predictions)
    run(lambda: one.look(3))
    assert {row.better for row in trials.differences(other.id, 20)} == {None}  # not asked for: not looked for


def test_a_process_that_has_lost_the_lead_shows_no_trial(store: Store) -> None:
    async def go() -> None:
        await first.look(1)
        assert first.shown("share") == 0.1
        silent(store)
        await second.look(2)
        await first.look(3)
        assert (first.shown("share"), second.shown("share")) == (None, 0.1)
        err(trial, store, "candidate", range(4))
        await second.look(4)
        for one in (first, second):
            await one.look(5)
        assert (first.shown("share"), second.shown("state", state="rolled_back")) == (None, 1)

    first, second = Process(store, "a"), Process(store, "b")
    trial = opened(store, CANARY)
    run(go)


def test_two_leaders_make_one_verdict(store: Store) -> None:
    trial, first, second = opened(store, SHADOW), Process(store, "a"), Process(store, "b")
    count(trial, store, "shadow", ENOUGH)

    async def go() -> None:
        await asyncio.gather(first.look(600), second.look(600), first.look(600), second.look(600))
        await asyncio.gather(first.look(601), second.look(601))

    run(go)
    assert states(store, trial) == ["shadow", "promoted"]
    assert [row.version for row in Registry(store).history("line")] == [1, 2]
    shown = [one.shown("state", state="promoted") for one in (first, second)]
    assert sorted(shown, key=str) == [1.0, None]  # one process leads, and shows the trial


def test_a_frozen_leader_that_wakes_up_writes_nothing(store: Store) -> None:
    trial, frozen, other = opened(store, CANARY), Process(store, "a"), Process(store, "b")
    count(trial, store, "candidate", ENOUGH)
    frozen_at, wakes_up = asyncio.Event(), asyncio.Event()

    async def loads() -> None:
        frozen_at.set()
        await wakes_up.wait()

    async def go() -> None:
        frozen.loads = loads
        looking = asyncio.ensure_future(frozen.look(600))
        await frozen_at.wait()
        silent(store)
        await other.look(600)
        wakes_up.set()
        await looking
        await frozen.look(601)

    run(go)
    assert states(store, trial) == ["canary", "promoted"]
    assert [row.version for row in Registry(store).history("line")] == [1, 2]


def test_a_frozen_leader_cannot_pause_what_its_successor_judges(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial has not changed since: only the fence tells the old leader from the new one."""
    trial, frozen, other = opened(store, CANARY, max_s=60.0), Process(store, "a"), Process(store, "b")
    read, wakes_up = threading.Event(), threading.Event()
    tally_of = frozen.tallies.of

    def slow(one: Trial) -> Any:
        tally = tally_of(one)
        read.set()
        wakes_up.wait(60)
        return tally

    async def go() -> None:
        monkeypatch.setattr(frozen.tallies, "of", slow)
        looking = asyncio.ensure_future(frozen.look(60))  # it would pause
        await asyncio.to_thread(read.wait)
        silent(store)
        await other.look(59)  # nothing is due by its clock
        wakes_up.set()
        await looking

    run(go)
    assert states(store, trial) == ["canary"]


def test_a_load_that_outlasts_the_lease_loses_it_not(store: Store) -> None:
    trial, one, other = opened(store, CANARY), Process(store, "a"), Process(store, "b")
    count(trial, store, "candidate", ENOUGH)
    begun, loaded = asyncio.Event(), asyncio.Event()

    async def loads() -> None:
        assert not begun.is_set()  # loaded once
        begun.set()
        await loaded.wait()

    async def go() -> None:
        one.loads = loads
        looking = asyncio.ensure_future(one.look(600))
        await begun.wait()
        for _ in range(3):
            await one.leader.look()
            await other.look(600)
        loaded.set()
        await looking

    run(go)
    assert states(store, trial) == ["canary", "promoted"]


def test_while_the_database_is_away_no_step_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, one = opened(store, SHADOW, CANARY), Process(store, "a")
    count(trial, store, "shadow", ENOUGH)

    async def go() -> None:
        await one.look(1)
        with away(store, monkeypatch):
            await one.look(600)
            await one.look(700)
        assert states(store, trial) == ["shadow"]
        await one.look(701)
        moved = one.trials.get(trial.id)
        count(moved, store, "candidate", ENOUGH)

        with ExitStack() as outage:

            async def loads() -> None:
                outage.enter_context(away(store, monkeypatch))

            one.loads = loads
            await one.look(1400)  # it goes away once the candidate is loaded
        assert states(store, trial) == ["shadow", "canary"]

    run(go)
    again = Process(store, "b")
    silent(store)
    run(lambda: again.look(1401))
    assert states(store, trial) == ["shadow", "canary", "promoted"]


@pytest.mark.parametrize("refusal", [Conflict, NotFound])
def test_a_candidate_that_cannot_be_loaded_is_rolled_back(store: Store, refusal: type[ServiceError]) -> None:
    trial, one = opened(store, CANARY), Process(store, "a")
    count(trial, store, "candidate", ENOUGH)

    async def loads() -> None:
        raise refusal("version 2 of line cannot be loaded")

    one.loads = loads
    run(lambda: one.look(600))
    assert Trials(store).get(trial.id).reason == "load: version 2 of line cannot be loaded"
    assert states(store, trial) == ["canary", "rolled_back"]


def test_a_fault_of_a_web_process_ends_it(store: Store) -> None:
    trial, one = opened(store, SHADOW), Process(store, "a")
    one.trials.note_fault(trial, "memory", "2 GB more than the limit", now=1)
    run(lambda: one.look(1))
    assert Trials(store).get(trial.id).reason == "memory: 2 GB more than the limit"


def test_a_failed_evaluation_pauses_the_trial_once_and_the_others_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trial, one = opened(store, CANARY), Process(store, "a")
    count(trial, store, "candidate", ENOUGH)

    def broken(_: Trial) -> Any:
        raise ZeroDivisionError

    async def go() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(one.tallies, "of", broken)
            for now in (600, 601, 602):
                await one.look(now)
        paused = one.trials.get(trial.id)
        assert (paused.state, paused.elapsed_s) == ("paused", 600)
        assert paused.reason == "its evaluation failed with ZeroDivisionError, see the service's log"
        await one.look(603)
        assert states(store, trial) == ["canary", "paused"]
        one.trials.resume(paused, by="admin", reason="mended", now=604)
        await one.look(604 + CANARY.for_s)

    run(go)
    assert states(store, trial) == ["canary", "paused", "canary", "promoted"]
    assert [record.message for record in caplog.records].count("trial not judged") == 1


def test_a_change_by_hand_in_the_same_moment_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, one = opened(store, SHADOW), Process(store, "a")
    count(trial, store, "shadow", ENOUGH)
    tally_of = one.tallies.of

    def aborted(found: Trial) -> Any:
        tally = tally_of(found)
        Trials(store).abort(found, by="admin", reason="enough", now=599)
        return tally

    monkeypatch.setattr(one.tallies, "of", aborted)
    run(lambda: one.look(600))
    assert states(store, trial) == ["shadow", "aborted"]
    assert Registry(store).live_version("line") == 1


def test_it_looks_while_it_is_entered_and_resigns_when_it_ends(store: Store) -> None:
    trial, one, other = opened(store, CANARY), Process(store, "a"), Process(store, "b")

    async def go() -> None:
        async with one.leader:
            one.looks.put_nowait(None)
            await one.looked.wait()
        assert one.shown("share") == 0.1
        err(trial, store, "candidate", range(4))
        await other.look(1)

    run(go)
    assert states(store, trial) == ["canary", "rolled_back"]


def test_without_a_trial_no_process_takes_the_lead(store: Store) -> None:
    run(partial(Process(store, "a").look, 1))
    with store.read() as connection:
        assert connection.execute(select(leaders)).all() == []


def test_a_promotion_that_still_loads_is_given_up_when_its_process_ends(store: Store) -> None:
    trial, one = opened(store, CANARY), Process(store, "a", now=600)
    count(trial, store, "candidate", ENOUGH)

    async def go() -> None:
        loading, ended = asyncio.Event(), []

        async def load() -> None:
            loading.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        one.loads = load
        async with one.leader:
            one.looks.put_nowait(None)
            await loading.wait()
        assert ended == [1]

    run(go)
    assert states(store, trial) == ["canary"]
