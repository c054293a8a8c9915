"""Counters of trials in one process: what is written, and what waits while the database is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select

from service.data.erasure import Erasure, Which
from service.delivery import count_rows, trial_counts
from service.delivery.count_rows import Key, Place
from service.delivery.trial_counts import TrialCounts
from service.delivery.trials import Counts, Difference, Trials
from service.errors import StoreUnavailable
from service.store.database import Store
from service.store.tables import trial_keys
from tests.captured import START, prediction
from tests.trials import opened, written_counts

LIVE, CANDIDATE = Place("t1", 0, "live"), Place("t1", 0, "candidate")


class Sometimes:
    """A store whose database may be away; its clock is `now`."""

    def __init__(self, store: Store) -> None:
        self.is_away = False
        self.now = 600.0
        self._store = store

    @contextmanager
    def beat(self, key: int) -> Iterator[Connection]:
        if self.is_away:
            raise StoreUnavailable("away")
        with self._store.beat(key) as connection:
            yield connection


@pytest.fixture
def sometimes(store: Store) -> Sometimes:
    return Sometimes(store)


@pytest.fixture
def counts(sometimes: Any) -> TrialCounts:
    return TrialCounts(sometimes, lambda: sometimes.now)


def rows(store: Store, trial: str = "t1") -> dict[tuple[str, int], Counts]:
    found: dict[tuple[str, int], Counts] = {}
    for row in written_counts(store, trial):
        place = (row.arm, row.minute)
        found[place] = found.get(place, Counts()) + row.counts
    return found


def difference(number: int) -> Difference:
    return Difference(
        prediction=f"p{number}", index=0, stage=0, at=1.0, live={"value": 1}, candidate={"value": 2}, better=None
    )


def test_counts_are_written_again_while_they_change(store: Store, counts: TrialCounts) -> None:
    tally = counts.tally(LIVE)
    tally.answered(3, 0.0002)
    assert counts.write()
    tally.answered(2, 60.0)
    tally.errors += 1
    counts.tally(CANDIDATE)  # nothing is counted
    assert counts.write()
    assert counts.write()
    (found,) = rows(store).values()
    assert (found.requests, found.samples, found.errors) == (2, 5, 1)
    assert (found.latency[1], found.latency[-1], sum(found.latency)) == (1, 1, 2)


def test_processes_add_up(store: Store, sometimes: Any) -> None:
    for _ in range(2):
        one = TrialCounts(sometimes, lambda: 600.0)
        one.tally(LIVE).answered(1, 0.1)
        one.write()
    assert len(written_counts(store, "t1")) == 2
    assert rows(store)["live", 10].requests == 2


def test_a_minute_has_a_row_and_late_requests_are_in_it(store: Store, sometimes: Any, counts: TrialCounts) -> None:
    first = counts.tally(LIVE)
    first.answered(1, 0.1)
    assert not counts.turn_over()
    counts.write()
    sometimes.now = 660.0
    assert counts.turn_over()
    assert not counts.turn_over()
    counts.tally(LIVE).answered(1, 0.1)
    first.answered(1, 0.1)  # began before the minute ended
    counts.write()
    assert {place: one.requests for place, one in rows(store).items()} == {("live", 10): 2, ("live", 11): 1}
    sometimes.now = 670.0
    counts.write()
    first.answered(1, 0.1)  # too late: the row was settled
    counts.write()
    assert rows(store)["live", 10].requests == 2


def test_a_clock_that_is_set_back_writes_over_nothing(store: Store, sometimes: Any, counts: TrialCounts) -> None:
    for now, requests in ((600.0, 5), (660.0, 7), (610.0, 1), (670.0, 2)):
        sometimes.now = now
        counts.turn_over()
        for _ in range(requests):
            counts.tally(LIVE).answered(1, 0.1)
        counts.write()
    assert {place: one.requests for place, one in rows(store).items()} == {("live", 10): 6, ("live", 11): 9}


def test_what_is_counted_after_the_end_of_a_trial_is_added(store: Store, counts: TrialCounts) -> None:
    counts.tally(CANDIDATE).answered(1, 0.1)
    counts.write()
    counts.forget("t1")
    counts.tally(CANDIDATE).not_finite += 1  # an answer that was being checked
    counts.write()
    found = rows(store)["candidate", 10]
    assert (found.requests, found.not_finite) == (1, 1)


def test_keys_are_written_in_one_order_so_that_no_two_processes_wait_for_each_other(
    store: Store,
) -> None:
    written: list[list[int]] = []
    with store.write() as connection:

        @event.listens_for(connection, "before_execute")
        def note(_: Any, clause: Any, many: Any, *__: Any) -> None:
            if clause.is_insert:
                written.append([row["key"] for row in many])

        count_rows.write_keys(connection, [Key("t1", stage, key, "live") for stage in (1, 0) for key in (7, 3, 9, 1)])
    assert written == [[1, 3, 7, 9], [1, 3, 7, 9]]


def test_what_was_counted_while_the_database_was_away_is_written_later(
    store: Store, sometimes: Any, counts: TrialCounts
) -> None:
    sometimes.is_away = True
    for minute in range(100):
        sometimes.now = 600.0 + 60 * minute
        counts.turn_over()
        counts.tally(LIVE).answered(1, 0.1)
        counts.erred(LIVE, minute)
        assert not counts.write()
    counts.differed("t1", difference(1))
    assert rows(store) == {}
    sometimes.is_away = False
    assert counts.write()
    assert [one.requests for one in rows(store).values()] == [100]
    with store.read() as connection:
        assert connection.scalar(select(func.count()).select_from(trial_keys)) == 100
    assert [one.prediction for one in Trials(store).differences("t1", 9)] == ["p1"]


def test_keys_are_noted_once_and_there_are_only_so_many(
    store: Store, sometimes: Any, counts: TrialCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_rows, "MOST_KEYS", 5)
    monkeypatch.setattr(trial_counts, "MOST_KEYS", 4)
    other = TrialCounts(sometimes, lambda: 600.0)
    for process, keys in ((counts, [1, 1, 2, 3]), (other, [4, 4, 5, 6, 7, 8])):
        for key in keys:
            process.erred(CANDIDATE, key)
        process.write()
    counts.erred(LIVE, 1)  # the stage has enough
    counts.erred(Place("t1", 1, "live"), 1)
    counts.write()
    with store.read() as connection:
        found = connection.execute(select(trial_keys.c.stage, trial_keys.c.key, trial_keys.c.arm)).all()
    expected = {(0, key, "candidate") for key in (1, 2, 3, 4, 5)} | {(1, 1, "live")}
    assert {(row.stage, row.key, row.arm) for row in found} == expected


def test_there_are_only_so_many_differences(
    store: Store, sometimes: Any, counts: TrialCounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_rows, "MOST_DIFFERENCES", 3)
    monkeypatch.setattr(trial_counts, "MOST_DIFFERENCES", 2)
    other = TrialCounts(sometimes, lambda: 600.0)
    for number in range(3):
        counts.differed("t1", difference(number))
        other.differed("t1", difference(number + 2))
    assert not counts.wants_difference("t1")
    assert counts.wants_difference("t2")
    assert all([counts.write(), other.write()])
    assert {one.prediction for one in Trials(store).differences("t1", 9)} == {"p0", "p1", "p2"}


def test_a_difference_that_was_erased_before_it_was_written_is_not_written(store: Store, counts: TrialCounts) -> None:
    trial = opened(store)
    for number in (1, 2):
        counts.differed(trial.id, replace(difference(number), prediction=prediction(number)))
    Erasure(store).erase("line", Which(id=prediction(1)), START)
    assert counts.write()
    assert [one.prediction for one in Trials(store).differences(trial.id, 9)] == [prediction(2)]


def test_a_trial_that_has_ended_is_written_and_forgotten(store: Store, sometimes: Any, counts: TrialCounts) -> None:
    counts.tally(LIVE).answered(1, 0.1)
    counts.tally(Place("t2", 0, "live")).answered(1, 0.1)
    counts.erred(LIVE, 1)
    counts.forget("t1")
    counts.write()
    sometimes.now += 10
    counts.write()
    assert rows(store)["live", 10].requests == 1
    assert rows(store, "t2")["live", 10].requests == 1
    assert counts.tally(LIVE).requests == 0
