"""Drift in the feed: one entry for each change, however many processes look. On both databases."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from benchmarks.drift_windows import shares
from models.checkpoints.record import Record
from models.drift.reference import DriftCounts, measured
from service.data.drift_counter import DriftCounter
from service.data.drift_rows import DAY, MINUTE_S, DriftRows, Place
from service.data.drift_states import DriftStates
from service.errors import StoreUnavailable
from service.store.database import Store
from service.store.drift_tables import drift_states
from service.store.feed import Changes, Entry
from service.store.tables import drift_counts, versions
from service.telemetry.served import Observers
from tests.line import LINE

REFERENCE = measured(LINE, [np.random.default_rng(1).normal(size=(20_000, 1))], [], {})
HOUR_S = 3600.0
NOON = 1_800_000_000.0 // HOUR_S * HOUR_S
SHIFTED, STABLE = 2.0, 0.0
KEY = "line", 1


@pytest.fixture
def rows(store: Store) -> DriftRows:
    """Versions 1 and 2 with the same reference."""
    record = Record(model="line", sha256="0", drift=REFERENCE.as_json())
    with store.write() as connection:
        for version in (1, 2):
            given = {"model": "line", "version": version, "created_at": 1.0, "job": None, "path": "x"}
            connection.execute(versions.insert().values(**given, record=asdict(record)))
    return DriftRows(store)


def seen(rows: DriftRows, at: float, shift: float, *, samples: int = 600, version: int = 1) -> None:
    """Samples of two minutes, the last of which is that of a time."""
    minute, rng = int(at // MINUTE_S), np.random.default_rng(7)
    for one in (minute - 1, minute):
        counts = DriftCounts(samples, [rng.multinomial(samples, shares(REFERENCE.distributions[0], shift))])
        rows.add({Place("line", version, one): counts})


def told(store: Store) -> list[Entry]:
    return list(Changes(store).new_events(0, 99))


def kinds(store: Store) -> list[str]:
    return [entry.kind for entry in told(store)]


class Process:
    """A web process whose counter is looked at once a minute."""

    def __init__(self, store: Store, clock: Callable[[], float], live: int | None = 1) -> None:
        self.live = live
        self.counter = DriftCounter(
            {"line": LINE},
            Observers(),
            DriftRows(store),
            DriftStates(store),
            live=lambda _: self.live,
            show=lambda *_: None,
            keep_days=30,
            now=clock,
        )
        if live is not None:
            self.counter._references["line", live] = REFERENCE  # it has answered


class Clock:
    seconds = NOON

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def minute(clock: Clock, *processes: Process) -> None:
    """Let a minute pass in all processes."""
    clock.seconds += MINUTE_S
    for one in processes:
        one.counter.step()


def test_drift_is_told_when_it_begins_and_when_it_has_ended_by_one_of_two_processes(
    store: Store, rows: DriftRows, clock: Clock
) -> None:
    both = Process(store, clock), Process(store, clock)
    seen(rows, NOON, STABLE)
    minute(clock, *both)
    assert kinds(store) == []
    clock.seconds += 2 * HOUR_S
    seen(rows, clock.seconds, SHIFTED)
    for _ in range(3):
        minute(clock, *both)
    begun_at = clock.seconds - 2 * MINUTE_S
    assert kinds(store) == ["drift.begun"]
    clock.seconds += 2 * HOUR_S
    seen(rows, clock.seconds, STABLE)
    for _ in range(3):
        minute(clock, *both)
    begun, ended = told(store)
    assert (begun.model, begun.at, begun.data["version"], begun.data["state"]) == ("line", begun_at, 1, "drift")
    assert begun.data["samples"] == 1200
    assert begun.data["until"] - begun.data["since"] == HOUR_S
    (feature,) = begun.data["features"]
    assert feature["psi"] > feature["limit"] > 0
    assert (feature["name"], feature["kind"]) == (REFERENCE.distributions[0].name, "feature")
    assert (ended.kind, ended.data["state"], ended.data["features"]) == ("drift.ended", "stable", [])
    assert ended.data["begun_at"] == begun_at


def test_a_process_that_is_started_later_does_not_tell_it_again(store: Store, rows: DriftRows, clock: Clock) -> None:
    seen(rows, NOON, SHIFTED)
    for _ in range(3):
        minute(clock, Process(store, clock))
    assert kinds(store) == ["drift.begun"]


def test_drift_ends_without_samples_also_after_a_restart_and_of_a_version_that_is_live_no_more(
    store: Store, rows: DriftRows, clock: Clock
) -> None:
    seen(rows, NOON, SHIFTED)
    minute(clock, Process(store, clock))
    later = Process(store, clock, live=None)  # nothing was asked since its start
    clock.seconds += HOUR_S / 2
    minute(clock, later)
    assert kinds(store) == ["drift.begun"]
    clock.seconds += HOUR_S
    minute(clock, later)
    assert [(entry.kind, entry.data["state"], entry.data["samples"]) for entry in told(store)[1:]] == [
        ("drift.ended", "too few samples", 0)
    ]


def test_few_samples_or_a_smaller_drift_do_not_end_it(store: Store, rows: DriftRows, clock: Clock) -> None:
    one = Process(store, clock)
    seen(rows, NOON, SHIFTED)
    minute(clock, one)
    for samples, shift in ((100, STABLE), (150, SHIFTED)):
        clock.seconds += 2 * HOUR_S
        seen(rows, clock.seconds, shift, samples=samples)
        minute(clock, one)
    assert kinds(store) == ["drift.begun"]


def test_the_drift_of_a_pruned_version_ends(store: Store, rows: DriftRows, clock: Clock) -> None:
    one = Process(store, clock)
    seen(rows, NOON, SHIFTED)
    minute(clock, one)
    with store.write() as connection:
        connection.execute(update(versions).values(pruned_at=1.0))
    minute(clock, one)
    assert [(entry.kind, entry.data["state"]) for entry in told(store)[1:]] == [("drift.ended", "no reference")]


def test_each_version_drifts_for_itself(store: Store, rows: DriftRows, clock: Clock) -> None:
    one = Process(store, clock)
    seen(rows, NOON, SHIFTED)
    minute(clock, one)
    one.live = 2
    one.counter._references["line", 2] = REFERENCE
    seen(rows, clock.seconds, SHIFTED, version=2)
    minute(clock, one)
    assert [(entry.kind, entry.data["version"]) for entry in told(store)] == [("drift.begun", 1), ("drift.begun", 2)]


def test_a_process_whose_clock_is_behind_changes_nothing(store: Store, rows: DriftRows) -> None:
    states = DriftStates(store)
    seen(rows, NOON, SHIFTED)
    states.settle(KEY, HOUR_S, NOON)
    states.settle(KEY, HOUR_S, NOON - 2 * HOUR_S)  # it sees no samples
    assert kinds(store) == ["drift.begun"]
    assert states.drifting() == {KEY}


def test_processes_that_look_at_the_same_time_tell_each_change_once(store: Store, rows: DriftRows) -> None:
    """Each thread decides by what it reads before its turn to write, and looks again in its transaction."""
    at, threads = NOON, 8
    seen(rows, at, SHIFTED)
    begin = Barrier(threads)

    def look(now: float) -> None:
        begin.wait()
        DriftStates(store).settle(KEY, HOUR_S, now)

    with ThreadPoolExecutor(threads) as pool:
        for now in (at, at + 2 * HOUR_S):
            list(pool.map(look, [now] * threads))
    assert kinds(store) == ["drift.begun", "drift.ended"]


def test_a_crash_before_the_end_of_the_transaction_leaves_neither_state_nor_entry(
    store: Store, rows: DriftRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise StoreUnavailable("the process ends here")

    seen(rows, NOON, SHIFTED)
    states = DriftStates(store)
    with monkeypatch.context() as context:
        context.setattr("service.data.drift_states.append", crash)
        with pytest.raises(StoreUnavailable):
            states.settle(KEY, HOUR_S, NOON)
    assert (states.drifting(), kinds(store)) == (set(), [])
    states.settle(KEY, HOUR_S, NOON)
    assert (states.drifting(), kinds(store)) == ({KEY}, ["drift.begun"])


def test_states_of_old_drift_are_removed_and_those_of_open_drift_stay(store: Store, rows: DriftRows) -> None:
    states = DriftStates(store)
    for version in (1, 2):
        seen(rows, NOON, SHIFTED, version=version)
        states.settle(("line", version), HOUR_S, NOON)
    with store.write() as connection:
        connection.execute(drift_counts.delete().where(drift_counts.c.version == 1))
    states.settle(KEY, HOUR_S, NOON + MINUTE_S)
    states.tidy(int(NOON // MINUTE_S) + 31 * DAY, 30 * DAY)
    assert kinds(store) == ["drift.begun", "drift.begun", "drift.ended"]
    with store.read() as connection:
        assert connection.execute(select(drift_states.c.version, drift_states.c.drifts)).all() == [(2, True)]
