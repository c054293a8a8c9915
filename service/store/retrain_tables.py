"""Table of the settings by which models are retrained."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Integer, String, Table

from service.store.tables import metadata

# When a model is retrained on its feedback, and with what order. `watermark` is the number of the last feedback that
# the last job was queued for; it moves in the transaction that queues `job`, at `queued_at`, for `reason`. `fault` says
# why the last try queued none.
retrain = Table(
    "retrain",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("corrections", Integer),
    Column("every_s", Float),
    Column("on_drift", Boolean, nullable=False),
    Column("at_most_every_s", Float, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("dataset", String(80)),
    Column("promote", String(16), nullable=False),
    Column("config", JSON, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("submitter", String(32), nullable=False),
    Column("watermark", BigInteger, nullable=False),
    Column("queued_at", Float),
    Column("job", String(32)),
    Column("reason", String(200)),
    Column("fault", String(2000)),
)
