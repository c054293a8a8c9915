"""The order in which jobs are claimed: those that were begun first, then submitters in turn (round-robin).

Jobs that wait for their dataset to be made are not claimed.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select, update

from service.jobs.leases import Lease, Leases, none_lost
from service.jobs.resources import Resources, within
from service.store.tables import jobs


def _leases(connection: Connection) -> list[Lease]:
    """Return the leases on all running jobs."""
    query = select(jobs.c.id.label("job"), jobs.c.attempt, jobs.c.beats, jobs.c.lease_s, jobs.c.worker)
    return [Lease(**row) for row in connection.execute(query.where(jobs.c.state == "running")).mappings()]


def expired(
    connection: Connection, leases: Leases, monotonic_s: float, lost: Callable[[Lease], bool] = none_lost
) -> Sequence[str]:
    """Return the jobs whose lease has expired by this look, in a writing transaction. See Leases."""
    # Changes no row. Fails if the database is read-only: heartbeats fail then, too, so silence does not count.
    connection.execute(update(jobs).where(jobs.c.id == "").values(released=0))
    return leases.expired(_leases(connection), monotonic_s, lost)


def next_row(connection: Connection, expired: Sequence[str], capacity: Resources | None = None) -> Row[Any] | None:
    """Return the oldest job that was begun and has no worker; else the oldest of the submitter whose turn it is.

    Only jobs that ask for no more than `capacity` count.
    """
    fits = within(capacity)
    query = select(jobs).where(_begun(expired), fits).order_by(jobs.c.number).limit(1)
    return connection.execute(query).one_or_none() or _next_in_turn(connection, fits)


def next_rows(connection: Connection, expired: Sequence[str], most: int) -> Sequence[Row[Any]]:
    """Return the jobs that `next_row` would return one after the other, at most `most`."""
    rows = list(connection.execute(select(jobs).where(_begun(expired)).order_by(jobs.c.number).limit(most)))
    place = func.row_number().over(partition_by=jobs.c.submitter, order_by=jobs.c.number).label("place")
    new = and_(jobs.c.state == "queued", jobs.c.attempt == 0, jobs.c.after.is_(None))
    ranked = select(jobs.c.number, jobs.c.submitter, place).where(new).subquery()
    first = list(connection.execute(select(ranked).where(ranked.c.place <= most)))
    served = _served(connection, {row.submitter for row in first})
    oldest = {row.submitter: row.number for row in first if row.place == 1}
    first.sort(key=lambda row: (row.place, served[row.submitter], oldest[row.submitter]))
    chosen = [row.number for row in first[: most - len(rows)]]
    found = {row.number: row for row in connection.execute(select(jobs).where(jobs.c.number.in_(chosen)))}
    return [*rows, *(found[number] for number in chosen)]


def _begun(expired: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a job was begun and has no worker."""
    left = and_(jobs.c.state == "running", jobs.c.id.in_(expired))
    return or_(left, and_(jobs.c.state == "queued", jobs.c.attempt > 0))


def _next_in_turn(connection: Connection, fits: ColumnElement[bool]) -> Row[Any] | None:
    """Return the oldest queued job of the submitter that was served least recently (round-robin)."""
    oldest, free = func.min(jobs.c.number), (jobs.c.state == "queued", jobs.c.after.is_(None))
    queued = select(jobs.c.submitter, oldest).where(*free, fits).group_by(jobs.c.submitter)
    first: dict[str, int] = {row[0]: row[1] for row in connection.execute(queued)}
    if not first:
        return None
    served = _served(connection, first)
    chosen = min(first, key=lambda submitter: (served[submitter], first[submitter]))
    return connection.execute(select(jobs).where(jobs.c.number == first[chosen])).one()


def _served(connection: Connection, submitters: Collection[str]) -> dict[str, int]:
    """Return the number of the last claim of each submitter."""
    last = select(jobs.c.submitter, func.max(jobs.c.claim)).where(jobs.c.submitter.in_(submitters))
    return {row[0]: row[1] for row in connection.execute(last.group_by(jobs.c.submitter))}
