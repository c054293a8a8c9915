"""The order in which jobs are claimed: those that were begun first, then submitters in turn (round-robin)."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from service.jobs.leases import Lease
from service.store.tables import jobs


def leases(connection: Connection) -> list[Lease]:
    """Return the leases on all running jobs."""
    query = select(jobs.c.id.label("job"), jobs.c.attempt, jobs.c.beats, jobs.c.lease_s)
    return [Lease(**row) for row in connection.execute(query.where(jobs.c.state == "running")).mappings()]


def next_row(connection: Connection, expired: Sequence[str]) -> Row[Any] | None:
    """Return the oldest job that was begun and has no worker; else the oldest of the submitter whose turn it is."""
    left = and_(jobs.c.state == "running", jobs.c.id.in_(expired))
    back = and_(jobs.c.state == "queued", jobs.c.attempt > 0)
    query = select(jobs).where(or_(left, back)).order_by(jobs.c.number).limit(1)
    return connection.execute(query).one_or_none() or _next_in_turn(connection)


def _next_in_turn(connection: Connection) -> Row[Any] | None:
    """Return the oldest queued job of the submitter that was served least recently (round-robin)."""
    oldest = func.min(jobs.c.number)
    queued = select(jobs.c.submitter, oldest).where(jobs.c.state == "queued").group_by(jobs.c.submitter)
    first: dict[str, int] = {row[0]: row[1] for row in connection.execute(queued)}
    if not first:
        return None
    last = select(jobs.c.submitter, func.max(jobs.c.claim)).where(jobs.c.submitter.in_(first))
    served: dict[str, int] = {row[0]: row[1] for row in connection.execute(last.group_by(jobs.c.submitter))}
    chosen = min(first, key=lambda submitter: (served[submitter], first[submitter]))
    return connection.execute(select(jobs).where(jobs.c.number == first[chosen])).one()
