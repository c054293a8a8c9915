"""Queue of training and ingest jobs: enqueue, claim, heartbeat, finish, fail, cancel.

Every transition says `WHERE id = ? AND state = ? AND attempt = ?`. The attempt number rises with each claim and is the
fencing token: a worker that froze and continues after its lease expired gets LeaseLost for every write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, update

from service.data.datasets import Datasets, DatasetVersion, may_mean
from service.delivery.gate import Gate, Policy
from service.errors import Conflict, Invalid, LimitReached, NotFound
from service.jobs import turns
from service.jobs.leases import Leases
from service.store.database import Store
from service.store.tables import events, jobs

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Kind = Literal["train", "ingest"]
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
MAX_ATTEMPTS = 3
MAX_QUEUED = 1000  # jobs of one submitter


class LeaseLost(Exception):
    """Another worker has the job, or it has ended: drop it and write nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row. Times are seconds since 1970."""

    number: int
    id: str
    kind: Kind
    model: str
    state: State
    config: Mapping[str, Any]
    dataset: str | None
    dataset_sha256: str | None
    ingest: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    promote: Policy
    promote_bounds: Mapping[str, Any] | None  # of the policy, see gate.Bounds
    tensorboard: bool
    idempotency_key: str | None
    attempt: int
    released: int
    worker: str | None
    beats: int
    lease_s: float
    submitter: str
    cancel_requested: bool
    progress: Mapping[str, Any] | None
    version: int | None
    gate: Mapping[str, Any] | None
    error: Mapping[str, str] | None
    created_at: float
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of a job. `id` rises over all jobs."""

    id: int
    job: str
    attempt: int
    at: float
    kind: Literal["progress", "state"]
    data: Mapping[str, Any]


class Jobs:
    """The tables of jobs and of their events, and the leases that a worker has seen."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._datasets = Datasets(store)
        self._leases = Leases()

    def enqueue(
        self,
        model: str,
        config: Mapping[str, Any],
        promote: Policy,
        *,
        promote_bounds: Mapping[str, Any] | None = None,
        tensorboard: bool = False,
        dataset: str | None = None,
        key: str | None = None,
        submitter: str = "",
        most: int = MAX_QUEUED,
        now: float,
    ) -> Job:
        """Add a job, or return the first job with the same idempotency key. `dataset` is pinned: a bare name becomes
        name@version of its newest version.

        Raises Invalid if the first job had another request body, NotFound for an unknown dataset, and LimitReached if
        `most` jobs of this submitter are queued.
        """
        with self._store.write() as connection:
            first = None if key is None else _one(connection, jobs.c.idempotency_key == key)
            if first is not None:
                order = "train", model, config, promote, promote_bounds, tensorboard
                known = first.kind, first.model, first.config, first.promote, first.promote_bounds, first.tensorboard
                _require_same(first, same=known == order and may_mean(dataset, first.dataset))
                return first
            pinned = None if dataset is None else self._datasets.find(connection, model, dataset)
            values = {
                "model": model,
                "config": dict(config),
                "promote": promote,
                "promote_bounds": promote_bounds,
                "tensorboard": tensorboard,
                "idempotency_key": key,
                **_pin(pinned),
            }
            return _added(connection, values, submitter, most, now)

    def enqueue_ingest(
        self,
        connection: Connection,
        model: str,
        dataset: str,
        config: Mapping[str, Any],
        ingest: Mapping[str, Any],
        *,
        job_id: str,
        key: str | None = None,
        submitter: str = "",
        most: int = MAX_QUEUED,
        now: float,
    ) -> Job:
        """Add an ingest job in the caller's transaction, or return the first job with the same idempotency key, which
        has another id than `job_id`. See jobs/ingests.py. Raises as `enqueue` does.
        """
        first = None if key is None else _one(connection, jobs.c.idempotency_key == key)
        if first is not None:
            name = (first.dataset or "").partition("@")[0]
            order = "ingest", model, dataset, ingest
            _require_same(first, same=(first.kind, first.model, name, first.ingest) == order)
            return first
        values = {
            "id": job_id,
            "kind": "ingest",
            "model": model,
            "config": dict(config),
            "promote": "never",
            "tensorboard": False,
            "dataset": dataset,
            "ingest": dict(ingest),
            "idempotency_key": key,
        }
        return _added(connection, values, submitter, most, now)

    def get(self, job_id: str) -> Job:
        """Return one job. Raises NotFound."""
        with self._store.read() as connection:
            return _required(connection, job_id)

    def page(
        self,
        *,
        model: str | None = None,
        state: str | None = None,
        kind: Kind | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Job]:
        """Return jobs, newest first; with `before`, those older than that job number."""
        chosen = {"model": model, "state": state, "kind": kind}
        query = select(jobs).where(*(jobs.c[name] == value for name, value in chosen.items() if value is not None))
        query = query.where(jobs.c.number < before) if before is not None else query
        with self._store.read() as connection:
            return [_job(row) for row in connection.execute(query.order_by(jobs.c.number.desc()).limit(limit))]

    def events(self, job_id: str, after: int = 0, kind: str | None = None) -> Sequence[Event]:
        """Return the events of a job after event `after`, oldest first."""
        query = select(events).where(events.c.job == job_id, events.c.id > after).order_by(events.c.id)
        query = query.where(events.c.kind == kind) if kind is not None else query
        with self._store.read() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()]

    def last_event(self) -> int:
        """Return the id of the last event of all jobs; 0 if there is none."""
        with self._store.read() as connection:
            return connection.scalar(select(func.max(events.c.id))) or 0

    def new_events(self, after: int, limit: int) -> Sequence[Event]:
        """Return events of all jobs after event `after`, oldest first. Writers take turns, so none comes in between."""
        query = select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
        with self._store.read() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()]

    def cancel(self, job_id: str, *, now: float) -> Job:
        """End a queued job, or ask the worker of a running job to stop. Raises NotFound, Conflict."""
        with self._store.write() as connection:
            job = _required(connection, job_id)
            if job.state in FINAL:
                raise Conflict(f"job {job_id} has {job.state} already: it cannot be cancelled")
            if job.state == "queued":
                self._end(connection, job, now, state="cancelled")
            else:
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(cancel_requested=True))
            return _required(connection, job_id)

    def cancel_queued(self, model: str | None = None, submitter: str | None = None, *, now: float) -> int:
        """End all queued jobs, or those of one model, or of one submitter. Returns how many."""
        chosen = jobs.c.state == "queued"
        if model is not None:
            chosen = and_(chosen, jobs.c.model == model)
        if submitter is not None:
            chosen = and_(chosen, jobs.c.submitter == submitter)
        with self._store.write() as connection:
            found = connection.execute(select(jobs).where(chosen)).all()
            if found:
                data = {"state": "cancelled", "error": None}
                rows = [
                    {"job": row.id, "attempt": row.attempt, "at": now, "kind": "state", "data": data} for row in found
                ]
                connection.execute(update(jobs).where(chosen).values(state="cancelled", error=None, finished_at=now))
                connection.execute(events.insert(), rows)
                for row in found:
                    self._drop_file(connection, _job(row))
        return len(found)

    def claim(self, worker: str, *, now: float, monotonic_s: float, lease_s: float) -> Job | None:
        """Claim a job: the oldest one that was begun and has no worker, else one of the submitter whose turn it is.

        It takes several calls to find out that a lease has expired (see Leases). A job without attempts left fails
        instead, and one with a cancel request is cancelled.
        """
        with self._store.write() as connection:
            # Changes no row. Fails if the database is read-only: heartbeats fail then, too, so silence does not count.
            connection.execute(update(jobs).where(jobs.c.id == "").values(released=0))
            expired = self._leases.expired(turns.leases(connection), monotonic_s)
            while row := turns.next_row(connection, expired):
                job = _job(row)
                if job.cancel_requested:
                    self._end(connection, job, now, state="cancelled")
                elif job.attempt - job.released >= MAX_ATTEMPTS:
                    self._end(connection, job, now, state="failed", error=_spent(job))
                else:
                    return _claimed(connection, job, worker, now, lease_s)
        return None

    def beat(self, job: Job, points: Sequence[Mapping[str, Any]], *, now: float) -> bool:
        """Renew the lease and store progress events. Returns whether the job is to be cancelled. Raises LeaseLost."""
        with self._store.write(durable=False) as connection:
            values: dict[str, Any] = {"beats": jobs.c.beats + 1}
            if points:
                values["progress"] = points[-1]
                rows = [
                    {"job": job.id, "attempt": job.attempt, "at": now, "kind": "progress", "data": p} for p in points
                ]
                connection.execute(events.insert(), rows)
            changed = update(jobs).where(_known(job)).values(**values).returning(jobs.c.cancel_requested)
            cancel_requested: bool | None = connection.scalar(changed)
            if cancel_requested is None:
                raise LeaseLost(job.id)
            return cancel_requested

    def finish(self, connection: Connection, job: Job, version: int, gate: Gate, *, now: float) -> None:
        """Mark the job as succeeded, in the transaction that registers its version. Raises LeaseLost."""
        _end(connection, job, now, state="succeeded", version=version, gate=gate.as_dict())

    def finish_ingest(
        self, connection: Connection, job: Job, version: DatasetVersion, report: Mapping[str, Any], *, now: float
    ) -> None:
        """Mark an ingest job as succeeded, in the transaction that registers its dataset version. Raises LeaseLost."""
        _change(connection, job, report=report)
        _end(connection, job, now, state="succeeded", **_pin(version))

    def fail(self, job: Job, title: str, detail: str, *, report: Mapping[str, Any] | None = None, now: float) -> None:
        """Mark the job as failed, without another attempt. Raises LeaseLost."""
        with self._store.write() as connection:
            if report is not None:
                _change(connection, job, report=report)
            self._end(connection, job, now, state="failed", error={"title": title, "detail": detail})

    def cancelled(self, job: Job, *, now: float) -> None:
        """Mark the job as cancelled. Raises LeaseLost."""
        with self._store.write() as connection:
            self._end(connection, job, now, state="cancelled")

    def requeue(self, job: Job, *, now: float, reason: str, in_good_order: bool = False) -> None:
        """Return the job to the queue, to be resumed. With `in_good_order` it does not count as a failed attempt.

        Raises LeaseLost.
        """
        with self._store.write() as connection:
            released = job.released + 1 if in_good_order else job.released
            error = None if in_good_order else {"title": f"Attempt {job.attempt} ended early", "detail": reason}
            _change(connection, job, state="queued", worker=None, released=released, error=error)
            _tell_state(connection, job.id, job.attempt, now, {"state": "queued", "reason": reason})

    def _end(self, connection: Connection, job: Job, now: float, *, state: State, **values: Any) -> None:
        """End a job without a result. Raises LeaseLost."""
        _end(connection, job, now, state=state, **values)
        self._drop_file(connection, job)

    def _drop_file(self, connection: Connection, job: Job) -> None:
        """Remove the file of an ingest job that has ended without a version."""
        if job.ingest is not None:
            self._datasets.drop_source(connection, job.model, job.ingest["source"])


def _pin(version: DatasetVersion | None) -> dict[str, str]:
    return {} if version is None else {"dataset": version.label, "dataset_sha256": version.sha256}


def _require_same(first: Job, *, same: bool) -> None:
    """Raise Invalid if a repeated idempotency key came with another order than the first job."""
    if not same:
        raise Invalid(f"this Idempotency-Key was sent with another order, job {first.id}: send a new key")


def _added(connection: Connection, values: Mapping[str, Any], submitter: str, most: int, now: float) -> Job:
    """Insert a queued job. Raises LimitReached if the submitter has `most` queued jobs."""
    _check_room(connection, submitter, most)
    row: dict[str, Any] = {"id": uuid4().hex, **values, "state": "queued", "submitter": submitter, "created_at": now}
    connection.execute(jobs.insert().values(attempt=0, released=0, cancel_requested=False, **row))
    _tell_state(connection, row["id"], 0, now, {"state": "queued"})
    return _required(connection, row["id"])


def _check_room(connection: Connection, submitter: str, most: int) -> None:
    """Raise LimitReached if the submitter has `most` queued jobs."""
    query = select(func.count()).where(jobs.c.state == "queued", jobs.c.submitter == submitter)
    if (connection.scalar(query) or 0) >= most:
        raise LimitReached(
            f"{most} jobs are queued already: wait, or cancel some of them with POST /jobs/ID/cancel", retry_after_s=10
        )


def _claimed(connection: Connection, job: Job, worker: str, now: float, lease_s: float) -> Job:
    attempt = job.attempt + 1
    _change(
        connection,
        job,
        state="running",
        attempt=attempt,
        worker=worker,
        claim=select(func.max(jobs.c.claim) + 1).scalar_subquery(),
        beats=jobs.c.beats + 1,
        lease_s=lease_s,
        started_at=now if job.started_at is None else job.started_at,
    )
    _tell_state(connection, job.id, attempt, now, {"state": "running", "attempt": attempt})
    return _required(connection, job.id)


def _spent(job: Job) -> dict[str, str]:
    last = job.error["detail"] if job.error else "its worker stopped answering"
    return {
        "title": "Gave up",
        "detail": f"{MAX_ATTEMPTS} attempts ended before the job was done; the last one: {last}",
    }


def _end(connection: Connection, job: Job, now: float, *, state: State, **values: Any) -> None:
    outcome = {"error": None, **values}
    _change(connection, job, state=state, finished_at=now, **outcome)
    _tell_state(connection, job.id, job.attempt, now, {"state": state, **outcome})


def _known(job: Job) -> ColumnElement[bool]:
    return and_(jobs.c.id == job.id, jobs.c.state == job.state, jobs.c.attempt == job.attempt)


def _change(connection: Connection, job: Job, **values: Any) -> None:
    """Update a job, only if state and attempt are those that the caller knows. Raises LeaseLost."""
    if connection.execute(update(jobs).where(_known(job)).values(**values)).rowcount != 1:
        raise LeaseLost(job.id)


def _tell_state(connection: Connection, job_id: str, attempt: int, now: float, data: Mapping[str, Any]) -> None:
    connection.execute(events.insert().values(job=job_id, attempt=attempt, at=now, kind="state", data=dict(data)))


def _one(connection: Connection, condition: ColumnElement[bool]) -> Job | None:
    row = connection.execute(select(jobs).where(condition)).one_or_none()
    return None if row is None else _job(row)


def _required(connection: Connection, job_id: str) -> Job:
    job = None if "\0" in job_id else _one(connection, jobs.c.id == job_id)  # PostgreSQL rejects NUL in text
    if job is None:
        raise NotFound(f"unknown job {job_id!r}; GET /jobs lists them")
    return job


def _job(row: Row[Any]) -> Job:
    return Job(**{field.name: row._mapping[field.name] for field in fields(Job)})
