"""torchloop prune: finished jobs, their events and files. On both databases."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.errors import NotFound
from service.jobs.queue import Job
from service.store.database import Store
from service.store.tables import jobs
from tests.upkeep import DAY_S, NOW, Filled, aged, pruned, reasons


@pytest.fixture
def filled(store: Store) -> Filled:
    return Filled(store)


def test_finished_jobs_go_with_their_events_and_files(filled: Filled) -> None:
    old, young, running = filled.job(finished_days_ago=31), filled.job(finished_days_ago=29), filled.running()
    for job in (old, young, running):
        aged(filled.storage.plot(job.id))
        aged(filled.storage.tensorboard(job.id) / "events.out")
        aged(filled.storage.resume_point(job.id, 1))
        aged(filled.storage.resume_point(job.id, 2).with_name(".resume-2.pt.half"))
    assert filled.count_events(old) == 2
    done = pruned(filled, days=30)
    assert done.jobs == [old.id]
    assert filled.count_events(old) == 0
    assert set(filled.storage.job_ids()) == {young.id, running.id}
    assert filled.storage.job_files(young.id) == [filled.storage.plot(young.id), *_events(filled, young)]
    assert filled.storage.resume_point(running.id, 1).exists()
    with pytest.raises(NotFound):
        filled.jobs.get(old.id)
    assert filled.jobs.get(young.id).state == "cancelled"


def _events(filled: Filled, job: Job) -> list[Path]:
    return [filled.storage.tensorboard(job.id) / "events.out"]


def test_the_newest_job_and_event_stay_so_that_numbers_go_on_rising(filled: Filled) -> None:
    first, second = filled.job(), filled.job(finished_days_ago=40)
    filled.jobs.cancel(first.id, now=NOW - 40 * DAY_S)
    last = filled.jobs.last_event()
    assert pruned(filled, days=1).jobs == []
    third = filled.job()
    assert third.number > second.number
    assert filled.jobs.last_event() > last
    assert pruned(filled, days=1).jobs == [first.id, second.id]


@pytest.mark.parametrize(
    ("values", "stays"),
    [
        ({"kind": "ingest", "dataset": "field@1", "dataset_sha256": "0"}, True),
        ({"kind": "ingest", "dataset": "field"}, False),
        ({"dataset": "field@1", "version": 1}, True),
        ({"dataset": "field@1"}, False),
        ({"version": 1}, False),
    ],
    ids=["ingest", "failed ingest", "trained on a dataset", "failed on a dataset", "trained"],
)
def test_jobs_that_tell_what_became_of_a_dataset_stay(filled: Filled, values: dict[str, Any], *, stays: bool) -> None:
    job = filled.job(finished_days_ago=40)
    filled.job()
    with filled.store.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(values))
    assert pruned(filled, days=30).jobs == ([] if stays else [job.id])


def test_folders_of_unknown_jobs_go_only_when_asked(filled: Filled) -> None:
    path = aged(filled.storage.plot("unknown"))
    assert reasons(pruned(filled)) == {"jobs/unknown/plot.png": "of no job: --orphans removes it"}
    assert path.exists()
    pruned(filled, orphans=True)
    assert not path.parent.exists()
