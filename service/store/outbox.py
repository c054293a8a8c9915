"""Deliveries of the feed to webhooks, until each is confirmed. See feed.py for how they are added."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, insert, select, update

from service.store.database import Store
from service.store.feed import Entry
from service.store.feed_tables import deliveries, feed, webhooks

_REMOVED = "not in the settings any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An entry that a webhook has not confirmed; `attempts` have failed."""

    webhook: str
    attempts: int
    entry: Entry


class Outbox:
    """The rows. Methods raise StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def configure(self, ids: Collection[str], now: float) -> None:
        """Deliver changes from now on to these webhooks and no others; one that has said 410 stays stopped."""
        with self._store.write() as connection:
            known = {row.id: row.reason for row in connection.execute(select(webhooks))}
            if new := [{"id": one} for one in ids if one not in known]:
                connection.execute(insert(webhooks), new)
            back = [one for one in ids if known.get(one) == _REMOVED]
            connection.execute(update(webhooks).where(webhooks.c.id.in_(back)).values(stopped_at=None, reason=None))
            removed = webhooks.c.id.not_in(ids), webhooks.c.stopped_at.is_(None)
            connection.execute(update(webhooks).where(*removed).values(stopped_at=now, reason=_REMOVED))
            connection.execute(delete(deliveries).where(deliveries.c.webhook.not_in(ids)))

    def due(self, webhook: str, now: float, limit: int) -> Sequence[Delivery]:
        """Return the first deliveries to a webhook whose time has come, in the order of their changes."""
        query = (
            select(feed, deliveries.c.attempts)
            .join(deliveries, deliveries.c.entry == feed.c.id)
            .where(deliveries.c.webhook == webhook, deliveries.c.next_at <= now)
            .order_by(feed.c.id)
            .limit(limit)
        )
        with self._store.read() as connection:
            return [
                Delivery(webhook=webhook, attempts=row.pop("attempts"), entry=Entry(**row))
                for row in (dict(found) for found in connection.execute(query).mappings())
            ]

    def confirm(self, one: Delivery) -> None:
        """Forget a delivery: the webhook has it, or has not taken it in all attempts."""
        with self._store.write() as connection:
            connection.execute(delete(deliveries).where(*_known(one)))

    def postpone(self, one: Delivery, next_at: float) -> None:
        """Count a failed attempt; another one is due at `next_at`."""
        with self._store.write() as connection:
            changed = {"attempts": one.attempts + 1, "next_at": next_at}
            connection.execute(update(deliveries).where(*_known(one)).values(changed))

    def stop(self, webhook: str, reason: str, now: float) -> None:
        """Deliver nothing more to a webhook."""
        with self._store.write() as connection:
            values = {"stopped_at": now, "reason": reason}
            connection.execute(update(webhooks).where(webhooks.c.id == webhook).values(values))
            connection.execute(delete(deliveries).where(deliveries.c.webhook == webhook))


def _known(one: Delivery) -> tuple[ColumnElement[bool], ...]:
    return deliveries.c.entry == one.entry.id, deliveries.c.webhook == one.webhook
