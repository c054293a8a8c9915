"""Table of the versions that drift, or have drifted."""

from sqlalchemy import Boolean, Column, Float, Integer, String, Table

from service.store.tables import metadata

# What the feed has said last about a version: whether it drifts, since `changed_at`. `until` is the minute before which
# the window ended that showed it: a process whose clock is behind changes nothing.
drift_states = Table(
    "drift_states",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("drifts", Boolean, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("until", Integer, nullable=False),
)
