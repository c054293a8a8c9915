"""Rows of jobs: how one is read, and the transitions that every caller shares.

Every transition says `WHERE id = ? AND state = ? AND attempt = ?`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, update

from service.delivery.gate import Policy
from service.errors import NotFound
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
    tell_state(connection, job.id, attempt, now, {"state": "running", "attempt": attempt})
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
    tell_state(connection, job.id, job.attempt, now, {"state": state, **outcome})


def known(job: Job) -> ColumnElement[bool]:
    """Return the condition that state and attempt of a job are those that the caller knows."""
    return and_(jobs.c.id == job.id, jobs.c.state == job.state, jobs.c.attempt == job.attempt)


def change(connection: Connection, job: Job, **values: Any) -> None:
    """Update a job, only if state and attempt are those that the caller knows. Raises LeaseLost."""
    if connection.execute(update(jobs).where(known(job)).values(**values)).rowcount != 1:
        raise LeaseLost(job.id)


def tell_state(connection: Connection, job_id: str, attempt: int, now: float, data: Mapping[str, Any]) -> None:
    """Add an event about a job's state."""
    connection.execute(events.insert().values(job=job_id, attempt=attempt, at=now, kind="state", data=dict(data)))


def one(connection: Connection, condition: ColumnElement[bool]) -> Job | None:
    """Return the job that fulfils a condition, if there is one."""
    row = connection.execute(select(jobs).where(condition)).one_or_none()
    return None if row is None else job_of(row)


def required(connection: Connection, job_id: str) -> Job:
    """Return a job. Raises NotFound."""
    job = None if "\0" in job_id else one(connection, jobs.c.id == job_id)  # PostgreSQL rejects NUL in text
    if job is None:
        raise NotFound(f"unknown job {job_id!r}; GET /jobs lists them")
    return job


def job_of(row: Row[Any]) -> Job:
    """Return a row of the table as a Job."""
    return Job(**{field.name: row._mapping[field.name] for field in fields(Job)})
