"""Retention of jobs: finished ones that a rule removes, and what their states say about files."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, and_, delete, func, not_, or_, select

from service.jobs.queue import FINAL, State
from service.store.tables import events, jobs


def training(connection: Connection) -> set[str]:
    """Return the models with a job that was begun and has not ended: it may have written files already."""
    begun = or_(jobs.c.state == "running", and_(jobs.c.state == "queued", jobs.c.attempt > 0))
    return set(connection.scalars(select(jobs.c.model).where(begun).distinct()))


def states(connection: Connection) -> Mapping[str, State]:
    """Return the state of every job, by its id."""
    return {row.id: row.state for row in connection.execute(select(jobs.c.id, jobs.c.state))}


def expired(connection: Connection, before: float) -> Sequence[str]:
    """Return the jobs that had ended by then, oldest first.

    Without those that made a dataset version, or trained a version on one: their rows tell which versions know the
    data. Without the newest job and the job of the newest event: SQLite would give their numbers, which order jobs and
    events, to the next ones.
    """
    last = select(func.max(jobs.c.number)).scalar_subquery()
    latest = select(events.c.job).order_by(events.c.id.desc()).limit(1)
    query = select(jobs.c.id).where(
        jobs.c.state.in_(FINAL), jobs.c.finished_at < before, jobs.c.number != last, jobs.c.id.not_in(latest)
    )
    made = and_(jobs.c.kind == "ingest", jobs.c.dataset_sha256.is_not(None))
    learnt = and_(jobs.c.kind == "train", jobs.c.dataset.is_not(None), jobs.c.version.is_not(None))
    query = query.where(not_(or_(made, learnt)))
    return list(connection.scalars(query.order_by(jobs.c.number)))


def remove(connection: Connection, job_ids: Sequence[str]) -> None:
    """Remove jobs that have ended, and their events."""
    connection.execute(delete(events).where(events.c.job.in_(job_ids)))
    connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))
