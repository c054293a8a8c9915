"""Tables of the feed of all changes, and of its deliveries to webhooks."""

from sqlalchemy import JSON, Column, Float, Index, Integer, String, Table

from service.store.tables import metadata

# Append-only, but for old entries: all changes, in order. See feed.py, and feed_kinds.py for the kinds.
feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("model", String(64), nullable=False),
    Column("data", JSON, nullable=False),
    Index("feed_by_time", "at"),
    sqlite_autoincrement=True,  # ids are not used again after pruning
)


# Receivers of the feed, by a digest of their address, which may hold a secret and stays in the settings. One with
# `stopped_at` gets nothing more: it has said 410, or is not in the settings any more.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("stopped_at", Float),
    Column("reason", String(200)),
)


# Entries of the feed that a webhook has not confirmed yet. `attempts` have failed; the next one is due at `next_at`.
deliveries = Table(
    "deliveries",
    metadata,
    Column("entry", Integer, primary_key=True, autoincrement=False),
    Column("webhook", String(32), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Float, nullable=False),
    Index("deliveries_due", "webhook", "next_at"),
)
