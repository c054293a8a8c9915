"""A store with versions, jobs and their files, for the tests of prune and fsck."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import update

from models.catalog import specs
from models.checkpoints import artifact_files
from models.checkpoints.record import Record
from service.data.datasets import Datasets, DatasetVersion
from service.delivery.registry import Registry
from service.jobs.queue import Job, Jobs
from service.store.database import Store
from service.store.tables import events, jobs
from service.upkeep.pruner import Pruner
from service.upkeep.rules import Pruned, Rules
from training.datasets.ingest import Request, ingest

DAY_S = 86_400.0
NOW = 1_000_000_000.0
MODEL = "regressor"


class Filled:
    """A store that tests fill. Files and rows are ten days old unless said otherwise."""

    def __init__(self, store: Store, model: str = MODEL) -> None:
        self.store = store
        self.storage = store.storage
        self.registry = Registry(store)
        self.jobs = Jobs(store)
        self._model = model

    def add(self, content: bytes, *, age_s: float = 10 * DAY_S, artifacts: Mapping[str, Any] | None = None) -> int:
        """Register weights, and artifacts as files, and return the version's number."""
        path = self.storage.keep(self._model, content)
        kept, files = artifact_files.divided(artifacts or {})
        artifact_files.write(files, path.parent)
        for file in (path, *(path.parent / name for name in files)):
            self.storage.publish(file)
            aged(file, age_s)
        sha256 = hashlib.sha256(content).hexdigest()
        with self.store.write() as connection:
            record = Record(model=self._model, sha256=sha256, metrics={"mse": 0.5}, artifacts=kept)
            return self.registry.add(connection, self._model, path, record, job=None, now=NOW - age_s)

    def record(self, version: int) -> Record:
        """Return a version's record."""
        return Record(**self.registry.version(self._model, version).record)

    def promote(self, *numbers: int) -> None:
        """Make versions live, one after the other."""
        for number in numbers:
            with self.store.write() as connection:
                self.registry.promote(connection, self._model, number, by="test", reason="", now=1.0)

    def rollback(self) -> None:
        """Make the version before live again."""
        with self.store.write() as connection:
            self.registry.rollback(connection, self._model, by="test", reason="", now=1.0)

    def job(self, *, finished_days_ago: float | None = None) -> Job:
        """Queue a job, and end it unless `finished_days_ago` is None."""
        job = self.jobs.enqueue(self._model, {}, "never", now=NOW - 100 * DAY_S)
        if finished_days_ago is not None:
            self.jobs.cancel(job.id, now=NOW - finished_days_ago * DAY_S)
        return job

    def running(self) -> Job:
        """Queue a job that a worker claims."""
        job = self.job()
        with self.store.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(state="running", attempt=1))
        return job

    def dataset(self, rows: int, name: str = "field", *, parent: DatasetVersion | None = None) -> DatasetVersion:
        """Make a version of a file of `rows` rows, and register it, with its job. Its files are ten days old."""
        file = self.store.folder.parent / f"{name}-{rows}.csv"
        file.write_text("x,value\n" + "".join(f"{row},{2 * row}\n" for row in range(rows)))
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        job = self.ingest(sha256, state="succeeded")
        request = Request(
            model=self._model,
            spec=specs()[self._model],
            target="value",
            labels=None,
            store=self.store.folder,
            job=job.id,
            source=file,
            parent=None if parent is None else self.store.folder / parent.folder,
        )
        made = ingest(request, lambda *_: None)
        for path in (self.storage.datasets(self._model), *self.storage.datasets(self._model).rglob("*")):
            aged(path)
        with self.store.write() as connection:
            label = None if parent is None else parent.label
            datasets = Datasets(self.store)
            version = datasets.add(
                connection, self._model, name, made, source=sha256, parent=label, job=job.id, now=NOW - 10 * DAY_S
            )
            pin = {"dataset": version.label, "dataset_sha256": version.sha256}
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(pin))
        return version

    def ingest(self, source: str, *, state: str, parent_sha256: str | None = None) -> Job:
        """Add an ingest job of a file, in that state, which ended 40 days ago."""
        values = {"source": source, "parent_sha256": parent_sha256}
        with self.store.write() as connection:
            job_id = uuid4().hex
            self.jobs.enqueue_ingest(connection, self._model, "field", {}, values, job_id=job_id, now=NOW - 40 * DAY_S)
            ended = None if state in {"queued", "running"} else NOW - 40 * DAY_S
            changed = update(jobs).where(jobs.c.id == job_id)
            connection.execute(changed.values(state=state, finished_at=ended))
        return self.jobs.get(job_id)

    def count_events(self, job: Job) -> int:
        """Return how many events a job has."""
        with self.store.read() as connection:
            return len(connection.execute(events.select().where(events.c.job == job.id)).all())

    def weights(self) -> set[str]:
        """Return the names of the files in the folder of the weights."""
        return {path.name for path in self.storage.weights(self._model)}

    def numbers(self) -> list[int]:
        """Return the versions that are left."""
        return [version.version for version in self.registry.versions(self._model)]


def pruned(filled: Filled, keep: int | None = None, days: float | None = None, *, orphans: bool = False) -> Pruned:
    """Prune, and require that the dry run has said the same and changed nothing."""
    rules = Rules(keep, days, orphans=orphans)
    pruner = Pruner(filled.store, specs(), rules, NOW)
    before = filled.numbers(), sorted(filled.store.folder.rglob("*"))
    planned = pruner.plan()
    assert (filled.numbers(), sorted(filled.store.folder.rglob("*"))) == before
    done = pruner.prune()
    assert done == planned
    return done


def reasons(found: Pruned) -> dict[str, str]:
    """Return why files are removed or left, by path."""
    return {file.path: file.why for file in (*found.files, *found.left)}


def aged(path: Path, age_s: float = 10 * DAY_S) -> Path:
    """Set a file's age; if there is none, write one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(b"content")
    os.utime(path, (NOW - age_s, NOW - age_s))
    return path


def environment(store: Store, url: str, **settings: str) -> dict[str, str]:
    """Return the environment variables of a command on a store."""
    names = {"STORE": str(store.folder), "DATABASE_URL": url, **settings}
    return {f"TORCHLOOP_{name}": value for name, value in names.items()}
