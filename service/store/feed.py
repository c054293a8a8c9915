"""Feed of all changes, of the kinds that feed_kinds.py lists, in one table: append-only, but for old entries.

An entry is added in the transaction of its change, and with it, for each webhook, a delivery that a sender does later
(transactional outbox): no change is announced that was rolled back, and none is forgotten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal, select, true

from service.store.database import Store
from service.store.feed_kinds import require
from service.store.feed_tables import deliveries, feed, webhooks

PAGE = 1000  # entries in one query


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change. `id` rises in the order of the changes; `kind` is such as `job.succeeded`."""

    id: int
    at: float
    kind: str
    model: str
    data: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The one subject of the feed."""
        return ""

    @property
    def is_last(self) -> bool:
        """The feed has no end."""
        return False


def append(connection: Connection, kind: str, model: str, at: float, data: Mapping[str, Any]) -> None:
    """Add an entry in the transaction of its change, and a delivery of it for each webhook.

    Raises ValueError for a kind, or a field of the data, that feed_kinds.py does not list.
    """
    append_all(connection, kind, at, [(model, data)])


def append_all(connection: Connection, kind: str, at: float, changes: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Add entries, as `append` does, for changes of a kind: the model and the data of each."""
    for _, data in changes:
        require(kind, data)
    before = connection.scalar(select(func.max(feed.c.id))) or 0  # writers take turns: later ids are of these rows
    rows = [{"at": at, "kind": kind, "model": model, "data": dict(data)} for model, data in changes]
    connection.execute(insert(feed), rows)
    receivers = select(feed.c.id, webhooks.c.id, literal(0), literal(at)).join_from(feed, webhooks, true())
    receivers = receivers.where(feed.c.id > before, webhooks.c.stopped_at.is_(None))
    connection.execute(insert(deliveries).from_select(["entry", "webhook", "attempts", "next_at"], receivers))


class Changes:
    """Reads the feed; a Source of service.jobs.feed. Methods raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def has_ended(self, subject: str) -> bool:  # noqa: ARG002 - see Source
        """See Source."""
        return False

    def events(self, subject: str, after: int = 0) -> Sequence[Entry]:  # noqa: ARG002 - see Source
        """See Source."""
        return self.new_events(after, PAGE)

    def last_event(self) -> int:
        """See Source."""
        with self._store.read() as connection:
            return connection.scalar(select(func.max(feed.c.id))) or 0

    def prune(self, before: float, most: int) -> int:
        """Remove at most `most` entries added before a time, the oldest first, and return how many. The last entry
        stays, and so do those that a webhook has yet to get.
        """
        waits = select(deliveries.c.entry).where(deliveries.c.entry == feed.c.id).exists()
        last = select(func.max(feed.c.id)).scalar_subquery()
        old = select(feed.c.id).where(feed.c.at < before, feed.c.id < last, ~waits).order_by(feed.c.id).limit(most)
        with self._store.read() as connection:
            ids = connection.scalars(old).all()
        if ids:  # no delivery is added later for an entry that has none
            with self._store.write(durable=False) as connection:
                connection.execute(delete(feed).where(feed.c.id.in_(ids)))
        return len(ids)

    def new_events(self, after: int, limit: int) -> Sequence[Entry]:
        """See Source."""
        query = select(feed).where(feed.c.id > after).order_by(feed.c.id).limit(limit)
        with self._store.read() as connection:
            return [Entry(**row) for row in connection.execute(query).mappings()]
