"""Tables of the database."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    false,
)

metadata = MetaData()


# Times are seconds since 1970, UTC. `number` is the order in which jobs came; `id` is what callers see.
jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False, server_default="train"),  # train or ingest
    Column("model", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("config", JSON, nullable=False),
    Column("dataset", String(80)),  # name@version; of an ingest job that has not succeeded, the name alone
    Column("dataset_sha256", String(64)),
    Column("ingest", JSON),  # parameters of an ingest job, see jobs/ingests.py
    Column("report", JSON),  # counts of the rows that an ingest job has read
    Column("promote", String(16), nullable=False),
    Column("promote_bounds", JSON),
    Column("tensorboard", Boolean, nullable=False, server_default=false()),
    Column("resources", JSON),  # that the job asks for, see jobs/resources.py
    Column("idempotency_key", String(200), unique=True),
    Column("attempt", Integer, nullable=False),  # fencing token: rises with every claim
    Column("released", Integer, nullable=False),  # attempts ended by a graceful stop; they do not count as failed
    Column("worker", String(200)),
    Column("beats", Integer, nullable=False, server_default="0"),  # heartbeats of all attempts; see jobs/leases.py
    Column("lease_s", Float, nullable=False, server_default="6"),
    Column("submitter", String(32), nullable=False, server_default=""),  # name of the API key
    Column("claim", Integer, nullable=False, server_default="0"),  # number of the last claim, over all jobs
    Column("cancel_requested", Boolean, nullable=False),
    Column("progress", JSON),
    Column("version", Integer),
    Column("gate", JSON),
    Column("error", JSON),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_by_submitter", "submitter", "claim"),
)


# Append-only: events of jobs, in order. `kind` is progress or state.
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", JSON, nullable=False),
    Index("events_by_job", "job", "id"),
)


# The row of a pruned version stays, without large parts of its record: its number is never used again.
# `path` is relative to the store folder.
versions = Table(
    "versions",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Float, nullable=False),
    Column("job", String(32)),
    Column("path", String(300), nullable=False),
    Column("record", JSON, nullable=False),
    Column("pruned_at", Float),  # its files have been removed since then
)


# Append-only. `version` is the one that is live from then on; `action` is promote or rollback.
promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("action", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String(200), nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("idempotency_key", String(200)),
    Index("promotions_by_model", "model", "id"),
    Index("promotions_by_key", "idempotency_key", unique=True),
)


# A deleted version keeps its row, so that its number is not used again. `folder` and `source` lie in the store: the
# version's files, by path, and the uploaded file, by digest. `parent` is a name@version.
datasets = Table(
    "datasets",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Float, nullable=False),
    Column("job", String(32), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("folder", String(300), nullable=False),
    Column("source", String(64), nullable=False),
    Column("parent", String(80)),
    Column("summary", JSON, nullable=False),
    Column("deleted_at", Float),
    Column("erased", Boolean, nullable=False, server_default=false()),
)


# Files that arrive in parts. How much has arrived is the size of the file. `job` is set once the upload is finished.
uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64)),
    Column("format", String(32), nullable=False),
    Column("options", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("job", String(32)),
)


# One row for each service: the web processes of a machine that share a port. Times are by the clock of the database.
# `state` is serving or leaving. `loaded` is the version of each model that all of its processes answer with, null if
# they have none or different ones.
nodes = Table(
    "nodes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("address", String(300), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("state", String(16), nullable=False),
    Column("processes", Integer, nullable=False),
    Column("loaded", JSON, nullable=False),
    Column("load", JSON, nullable=False),
    Column("software", String(200), nullable=False),
)
