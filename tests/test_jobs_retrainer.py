"""Retraining by settings: so many corrections queue exactly one job, whatever happens."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from models.drift.reference import counted, measured
from service.data.drift_rows import MINUTE_S, DriftRows, Place
from service.data.feedback import Entry, Feedback, Kind
from service.data.uploads import Uploads
from service.errors import StoreUnavailable
from service.execution.recipes import RecipeSchema
from service.jobs.learning import Learning
from service.jobs.queue import Job, Jobs
from service.jobs.retrain_rows import RetrainRows, RetrainSettings, move
from service.jobs.retrainer import DRIFT, Retrainer, promotes
from service.store.database import Store
from service.store.feed import Changes
from service.store.leadership import LEASE_S, Leadership
from service.store.tables import leaders, promotions, versions
from tests.captured import START, captured, prediction, registered, row
from tests.fakes import LINE
from tests.serving import LINE_RECIPE

SAMPLES = 12
TEN = RetrainSettings(corrections=10, dataset="lines", at_most_every_s=60.0, weight=3)
DAY = 86_400.0


async def recipes() -> Mapping[str, RecipeSchema]:
    return {"line": replace(LINE_RECIPE, target="value", built_in={"lines": {"train": 8}})}


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = START + DAY

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rows(store: Store) -> RetrainRows:
    registered(store, 1)
    captured(store, [row(number) for number in range(SAMPLES)])
    return RetrainRows(store)


def told(store: Store, *numbers: int, truth: float = 8.0, kind: Kind = "correction") -> None:
    entries = [
        Entry(id=prediction(one), key=None, position=0, truth=truth, kind=kind, drawn="random", by="me")
        for one in numbers
    ]
    Feedback(store).add("line", entries, START)


def use(rows: RetrainRows, settings: RetrainSettings, now: float = START) -> None:
    rows.set("line", settings, by="train", submitter="train-1", now=now)


def process(store: Store, clock: Clock, name: str = "a", learning: Learning | None = None) -> Retrainer:
    learning = learning or Learning({"line": LINE}, store, Jobs(store), Uploads(store, 10**6))
    return Retrainer(store, learning, recipes, name, 9, now=clock)


def look(one: Retrainer) -> list[Job]:
    return asyncio.run(one.look())


def queued(store: Store) -> list[Job]:
    return [job for job in Jobs(store).page(limit=99) if job.kind == "train"]


def silent(store: Store) -> None:
    """Let the leader look as if it had ended."""
    with store.write() as connection:
        connection.execute(update(leaders).values(seen_at=leaders.c.seen_at - LEASE_S - 1))


def test_so_many_corrections_queue_exactly_one_job(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, TEN)
    one = process(store, clock)
    told(store, *range(9))
    assert look(one) == []
    told(store, 9)
    (job,) = look(one)
    assert (job.promote, job.submitter, job.dataset, job.state) == ("trial", "train-1", "lines", "queued")
    kept, news = rows.of("line")
    assert kept is not None
    assert (kept.job, kept.reason, news.corrections, kept.queued_at) == (job.id, "10 new corrections", 0, clock.now)
    clock.now += DAY
    assert look(one) == []
    assert [entry.data for entry in Changes(store).new_events(0, 999) if entry.kind == "retrain.queued"] == [
        {"job": job.id, "ingest": job.after, "reason": "10 new corrections", "promote": "trial"}
    ]


def test_the_next_job_needs_as_many_new_ones(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, TEN)
    one = process(store, clock)
    told(store, *range(10))
    assert len(look(one)) == 1
    clock.now += DAY
    told(store, *range(9), truth=9.0)  # they replace the earlier ones
    assert look(one) == []
    told(store, 11)
    assert len(look(one)) == 1


def test_two_processes_and_a_crash_between_queue_one_job(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, TEN)
    told(store, *range(10))

    class Crashing(Learning):
        """Learning that ends with its transaction open."""

        def queue(self, *given: Any, then: Any = None, **options: Any) -> Job:
            def crash(*told: Any) -> None:
                then(*told)
                raise StoreUnavailable("the process ends here")

            return super().queue(*given, then=crash, **options)

    crashing = Crashing({"line": LINE}, store, Jobs(store), Uploads(store, 10**6))
    with pytest.raises(StoreUnavailable):
        look(process(store, clock, "a", crashing))
    assert queued(store) == []
    second = process(store, clock, "b")
    assert look(second) == []  # the first one still leads
    silent(store)
    (job,) = look(second)
    assert queued(store) == [job]
    silent(store)
    assert look(process(store, clock, "a")) == []
    assert len(queued(store)) == 1


def test_a_leader_that_froze_queues_nothing_when_it_wakes_up(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, TEN)
    told(store, *range(10))

    class Frozen(Learning):
        """Learning that is overtaken before its transaction."""

        def queue(self, *given: Any, **options: Any) -> Job:
            silent(store)
            assert len(look(process(store, clock, "b"))) == 1
            return super().queue(*given, **options)

    frozen = Frozen({"line": LINE}, store, Jobs(store), Uploads(store, 10**6))
    assert look(process(store, clock, "a", frozen)) == []
    assert len(queued(store)) == 1


def test_a_leader_that_has_lost_the_lead_leaves_the_job_to_the_other_one(
    store: Store, rows: RetrainRows, clock: Clock
) -> None:
    use(rows, TEN)
    told(store, *range(10))

    class Frozen(Learning):
        """Learning before whose transaction another process takes the lead, and has queued nothing yet."""

        def queue(self, *given: Any, **options: Any) -> Job:
            silent(store)
            assert Leadership(store, "retrain", "b").lead() is not None
            return super().queue(*given, **options)

    frozen = Frozen({"line": LINE}, store, Jobs(store), Uploads(store, 10**6))
    assert look(process(store, clock, "a", frozen)) == []
    assert queued(store) == []
    assert len(look(process(store, clock, "b"))) == 1


def test_a_watermark_moves_once_from_the_same_place(store: Store, rows: RetrainRows) -> None:
    use(rows, TEN)
    kept, _ = rows.of("line")
    assert kept is not None
    with store.write() as connection:
        moved = [move(connection, kept, last, job="j", reason="", now=START) for last in (10, 11)]
    assert moved == [True, False]


def test_settings_that_change_meanwhile_queue_nothing(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, TEN)
    told(store, *range(10))

    class Changed(Learning):
        """Learning during which the settings are replaced."""

        def queue(self, *given: Any, **options: Any) -> Job:
            use(rows, RetrainSettings(), now=clock.now)
            return super().queue(*given, **options)

    changed = Changed({"line": LINE}, store, Jobs(store), Uploads(store, 10**6))
    assert look(process(store, clock, "a", changed)) == []
    assert queued(store) == []


def test_two_jobs_are_apart(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, replace(TEN, corrections=1, at_most_every_s=3600.0))
    one = process(store, clock)
    told(store, 1)
    assert len(look(one)) == 1
    told(store, 2)
    clock.now += 3599
    assert look(one) == []
    clock.now += 1
    assert len(look(one)) == 1


def test_time_queues_a_job_if_there_is_something_new(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, replace(TEN, corrections=None, every_s=7 * DAY), now=clock.now)
    one = process(store, clock)
    told(store, 1, kind="audit")
    assert look(one) == []
    clock.now += 7 * DAY
    (job,) = look(one)
    assert job.feedback is not None
    assert job.feedback["reason"] == "1 new labelled samples, and the time since the last job"
    clock.now += 7 * DAY
    assert look(one) == []


def drift(store: Store, now: float, shift: float) -> None:
    """Count 600 samples of the live version in each of the last two minutes, that far from its training samples."""
    train = np.random.default_rng(1).normal(size=(20_000, 1))
    reference = measured(LINE, [train], [], {})
    with store.write() as connection:
        connection.execute(update(versions).values(record={"drift": reference.as_json()}))
        row = {"model": "line", "version": 1, "action": "promote", "at": START, "by": "me", "reason": ""}
        connection.execute(promotions.insert().values(row))
    found = counted(LINE, reference, train[:600] + shift, np.zeros(600))
    last = int(now // MINUTE_S)
    DriftRows(store).add({Place("line", 1, minute): found for minute in (last - 1, last)})


def test_drift_queues_a_job_that_does_not_promote(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, replace(TEN, corrections=None, on_drift=True, promote="always"))
    one = process(store, clock)
    told(store, 1)
    drift(store, clock.now, shift=0.0)
    assert look(one) == []
    clock.now += DAY
    drift(store, clock.now, shift=2.0)
    (job,) = look(one)
    assert (job.promote, rows.all()[0].reason) == ("never", DRIFT)
    clock.now += DAY
    assert look(one) == []  # nothing new to learn


def test_drift_alone_never_promotes() -> None:
    assert [promotes(policy, DRIFT) for policy in ("always", "if_better", "no_worse", "never", "trial")] == [
        *(["never"] * 4),
        "trial",
    ]
    assert promotes("always", "10 new corrections") == "always"


def test_a_model_without_a_reference_has_no_drift(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, replace(TEN, corrections=None, on_drift=True))
    told(store, 1)
    assert look(process(store, clock)) == []


def test_a_job_that_cannot_be_queued_is_noted_and_tried_again(store: Store, rows: RetrainRows, clock: Clock) -> None:
    use(rows, replace(TEN, corrections=1, dataset="nothing@3"))
    told(store, 1)
    one = process(store, clock)
    assert look(one) == []
    fault = rows.all()[0].fault
    assert fault is not None
    assert "no dataset nothing@3" in fault
    silent(store)
    assert look(process(store, clock, "b")) == []  # fails as well, and tells nothing more
    failed = [entry.data for entry in Changes(store).new_events(0, 99) if entry.kind == "retrain.failed"]
    assert failed == [{"due": "1 new corrections", "reason": fault}]
    silent(store)
    use(rows, replace(TEN, corrections=1))
    assert rows.all()[0].fault is None
    assert look(one) == []  # within the minute
    clock.now += 60
    assert len(look(one)) == 1


def test_nothing_is_looked_at_without_settings(store: Store, clock: Clock) -> None:
    assert look(process(store, clock)) == []
    with store.read() as connection:
        assert connection.execute(select(leaders)).all() == []
