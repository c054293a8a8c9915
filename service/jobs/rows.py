"""Rows of jobs: how one is read, and the transitions that every caller shares.

Every transition says `WHERE id = ? AND state = ? AND attempt = ?`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, update

from models.errors import shown
from service.delivery.gate import Policy
from service.errors import Invalid, LimitReached, NotFound
from service.store.feed import append
from service.store.tables import events, jobs

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Kind = Literal["train", "ingest"]
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})
MAX_ATTEMPTS = 3


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
    after: str | None  # id of the ingest job that makes its dataset
    feedback: Mapping[str, Any] | None
    promote: Policy
    promote_bounds: Mapping[str, Any] | None  # of the policy, see gate.Bounds
    tensorboard: bool
    resources: Mapping[str, Any] | None  # that it asks for, see resources.Resources
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
    kind: Literal["progress", "log", "state"]
    data: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The job's id."""
        return self.job

    @property
    def is_last(self) -> bool:
        """Whether no event of the job follows."""
        return self.kind == "state" and self.data.get("state") in FINAL


def claimed(connection: Connection, job: Job, worker: str, now: float, lease_s: float) -> Job:
    """Begin the next attempt at a job. Raises LeaseLost."""
    attempt = job.attempt + 1
    change(
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
    tell_state(connection, job, attempt, now, {"state": "running", "attempt": attempt})
    return required(connection, job.id)


def spent(job: Job) -> dict[str, str]:
    """Return the error of a job that has no attempts left."""
    last = job.error["detail"] if job.error else "its worker stopped answering"
    return {
        "title": "Gave up",
        "detail": f"{MAX_ATTEMPTS} attempts ended before the job was done; the last one: {last}",
    }


def end(connection: Connection, job: Job, now: float, *, state: State, **values: Any) -> None:
    """End a job. Raises LeaseLost."""
    outcome = {"error": None, **values}
    change(connection, job, state=state, finished_at=now, **outcome)
    tell_state(connection, job, job.attempt, now, {"state": state, **outcome})


def known(job: Job) -> ColumnElement[bool]:
    """Return the condition that state and attempt of a job are those that the caller knows."""
    return and_(jobs.c.id == job.id, jobs.c.state == job.state, jobs.c.attempt == job.attempt)


def change(connection: Connection, job: Job, **values: Any) -> None:
    """Update a job, only if state and attempt are those that the caller knows. Raises LeaseLost."""
    if connection.execute(update(jobs).where(known(job)).values(**values)).rowcount != 1:
        raise LeaseLost(job.id)


def tell_state(connection: Connection, job: Job, attempt: int, now: float, data: Mapping[str, Any]) -> None:
    """Add an event about a job's state, also to the feed of all changes."""
    connection.execute(events.insert().values(job=job.id, attempt=attempt, at=now, kind="state", data=dict(data)))
    append(connection, f"job.{data['state']}", job.model, now, told_of(job, attempt, data))


def told_of(job: Job, attempt: int, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the feed of all changes says about a job's state."""
    return {"job": job.id, "job_kind": job.kind, "attempt": attempt, **data}


def one(connection: Connection, condition: ColumnElement[bool]) -> Job | None:
    """Return the job that fulfils a condition, if there is one."""
    row = connection.execute(select(jobs).where(condition)).one_or_none()
    return None if row is None else job_of(row)


def with_key(connection: Connection, key: str | None) -> Job | None:
    """Return the job with an idempotency key, if there is one."""
    return None if key is None else one(connection, jobs.c.idempotency_key == key)


def required(connection: Connection, job_id: str) -> Job:
    """Return a job. Raises NotFound."""
    job = None if "\0" in job_id else one(connection, jobs.c.id == job_id)  # PostgreSQL rejects NUL in text
    if job is None:
        raise NotFound(f"unknown job {shown(job_id)!r}; GET /jobs lists them")
    return job


def job_of(row: Row[Any]) -> Job:
    """Return a row of the table as a Job."""
    return Job(**{field.name: row._mapping[field.name] for field in fields(Job)})


def require_same(first: Job, *, same: bool) -> None:
    """Raise Invalid if a repeated idempotency key came with another order than the first job."""
    if not same:
        raise Invalid(f"this Idempotency-Key was sent with another order, job {first.id}: send a new key")


def added(connection: Connection, values: Mapping[str, Any], submitter: str, most: int, now: float) -> Job:
    """Insert a queued job. Raises LimitReached if the submitter has `most` queued jobs."""
    _check_room(connection, submitter, most)
    row: dict[str, Any] = {"id": uuid4().hex, **values, "state": "queued", "submitter": submitter, "created_at": now}
    connection.execute(jobs.insert().values(attempt=0, released=0, cancel_requested=False, **row))
    job = required(connection, row["id"])
    tell_state(connection, job, 0, now, {"state": "queued"})
    return job


def _check_room(connection: Connection, submitter: str, most: int) -> None:
    """Raise LimitReached if the submitter has `most` queued jobs."""
    query = select(func.count()).where(jobs.c.state == "queued", jobs.c.submitter == submitter)
    if (connection.scalar(query) or 0) >= most:
        raise LimitReached(
            f"{most} jobs are queued already: wait, or cancel some of them with POST /jobs/ID/cancel", retry_after_s=10
        )


def release(connection: Connection, made: Job, values: Mapping[str, Any], now: float) -> None:
    """Let the jobs begin that wait for the dataset version that an ingest job has made. `values` pin the version."""
    for row in connection.execute(select(jobs).where(jobs.c.after == made.id, jobs.c.state == "queued")).all():
        job = job_of(row)
        change(connection, job, after=None, **values)
        tell_state(connection, job, job.attempt, now, {"state": "queued", "reason": f"{values['dataset']} is made"})


def give_up_waiting(connection: Connection, ended: Job, state: State, now: float) -> None:
    """Fail the jobs that wait for an ingest job which has ended without a dataset version."""
    detail = f"job {ended.id}, which was to make its dataset, has {'been ' * (state == 'cancelled')}{state}"
    for row in connection.execute(select(jobs).where(jobs.c.after == ended.id, jobs.c.state == "queued")).all():
        end(connection, job_of(row), now, state="failed", error={"title": "No dataset", "detail": detail})
