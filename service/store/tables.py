"""Tables of the database."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData()
# The conditions of partial indexes. The migrations have them for PostgreSQL, too; here they would import its dialect.
_OPEN = text("finished_at IS NULL")
_SERIAL = BigInteger().with_variant(Integer, "sqlite")  # an alias of the rowid
_WITH_KEY = text("key IS NOT NULL")


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
    Column("after", String(32)),  # the ingest job that makes its dataset; null once that is made
    Column("feedback", JSON),  # what the dataset was to learn from, see jobs/learning.py
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
    Index("jobs_by_after", "after"),
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
    Column("trials", JSON, nullable=False, server_default="{}"),  # the stage of each open trial that all of them follow
)


# One row for each trial of a candidate. `attempt` rises with each transition; with `state` and `stage` it is what a
# transition compares. `elapsed_s` is the time in the stage until `stage_since`, from which it counts on unless paused.
# Open trials have no `finished_at`, and a model has at most one of them.
trials = Table(
    "trials",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("live", Integer, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("key_header", String(100)),
    Column("conditions", JSON, nullable=False),
    Column("when_undecided", String(16), nullable=False),
    Column("max_s", Float),
    Column("opened_at", Float, nullable=False),
    Column("stage_since", Float, nullable=False),
    Column("elapsed_s", Float, nullable=False),
    Column("decide_by", Float),
    Column("finished_at", Float),
    Column("by", String(200), nullable=False),
    Column("job", String(32)),
    Column("reason", String(2000), nullable=False),
    Index("trials_by_model", "model", "opened_at"),
    Index("trials_open", "model", unique=True, sqlite_where=_OPEN),
)


# Append-only: what happened to trials, in order. `kind` is state or fault.
trial_events = Table(
    "trial_events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("trial", String(32), nullable=False),
    Column("model", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("data", JSON, nullable=False),
    Index("trial_events_by_trial", "trial", "id"),
    Index("trial_events_by_model", "model", "id"),
)


# Counters of the requests of one minute (since 1970) in one web process, by arm: live, candidate or shadow.
trial_counts = Table(
    "trial_counts",
    metadata,
    Column("trial", String(32), primary_key=True),
    Column("stage", Integer, primary_key=True, autoincrement=False),
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("process", String(64), primary_key=True),
    Column("arm", String(16), primary_key=True),
    Column("counts", JSON, nullable=False),
)


# Keys that had an error, by a 63-bit hash. In a shadow stage a key may have had one in both arms.
trial_keys = Table(
    "trial_keys",
    metadata,
    Column("trial", String(32), primary_key=True),
    Column("stage", Integer, primary_key=True, autoincrement=False),
    Column("key", BigInteger, primary_key=True, autoincrement=False),
    Column("arm", String(16), primary_key=True),
)


# Samples that the two versions answered differently in a shadow stage. `better` says which one the truth, once known,
# agrees with: live, candidate or neither.
trial_differences = Table(
    "trial_differences",
    metadata,
    Column("trial", String(32), primary_key=True),
    Column("prediction", String(64), primary_key=True),
    Column("index", Integer, primary_key=True, autoincrement=False),
    Column("stage", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("live", JSON, nullable=False),
    Column("candidate", JSON, nullable=False),
    Column("better", String(16)),
    Index("trial_differences_by_prediction", "prediction", "index"),
)


# One row for each kind of work that one process of all machines does at a time. `attempt` rises with each holder, and
# is the fencing token. `seen_at` is by the clock of the database.
leaders = Table(
    "leaders",
    metadata,
    Column("work", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("seen_at", Float, nullable=False),
)


# What a version has answered in a minute, counted in the bins of its reference: models.drift.reference.DriftCounts.
# `minute` counts from 1970; the minutes of an hour that is more than a day old are merged into its first one.
drift_counts = Table(
    "drift_counts",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("counts", JSON, nullable=False),
)


# What is kept of the answers of each model; a model without a row keeps nothing. `examples` and `bytes` are what the
# captures of the model hold now; `whole_from` is the number of the capture from which on retention has removed none.
capture_settings = Table(
    "capture_settings",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("rate", Float, nullable=False),
    Column("max_examples", BigInteger, nullable=False),
    Column("max_bytes", BigInteger, nullable=False),
    Column("days", Float, nullable=False),
    Column("originals", Boolean, nullable=False),
    Column("changed_at", Float, nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("examples", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("whole_from", BigInteger, nullable=False, server_default="0"),
)


# Samples that were answered, one row each: `id` is the prediction's, `position` that of the sample in its body.
# `content` and `answer` are in the form of models/packed_rows.py, `said` is what feedback is compared with. The row of
# an erased capture stays, without its content; so does that of a pruned one that a dataset has. Blobs are last: SQLite
# reads the other columns without them. Numbers are not used again.
captures = Table(
    "captures",
    metadata,
    Column("number", _SERIAL, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("id", String(48), nullable=False),
    Column("position", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("at", Float, nullable=False),  # when the request began
    Column("key", String(200)),  # X-Prediction-Key
    Column("media_type", String(100), nullable=False),
    Column("code", String(64)),  # digest of the model's code
    Column("backend", String(16)),
    Column("form", String(8)),  # numeric form that computed the answer; null: not known
    Column("rate", Float, nullable=False),  # share of the requests that was captured
    Column("draw", Integer, nullable=False),  # pseudo-random, from id and position: the order of audits
    Column("probability", Float),  # of the answered label; of several outputs the least one
    Column("state", String(10), nullable=False),  # see data/feedback.py, or gone
    Column("bytes", Integer, nullable=False),
    Column("erased_at", Float),
    Column("pruned_at", Float),
    Column("said", JSON),
    Column("answer", LargeBinary),
    Column("content", LargeBinary),
    Column("original", LargeBinary),  # the bytes of the sample's picture file, if originals are kept
    UniqueConstraint("id", "position", name="captures_by_id"),
    # Has all columns that lists, counts and retention need: their rows are not read.
    Index("captures_by_model", "model", "state", "number", "version", "at", "probability", "draw"),
    Index("captures_by_key", "model", "key", sqlite_where=_WITH_KEY),
    sqlite_autoincrement=True,
)


# Jobs that made a dataset version of captures, each with its captures: which datasets know what is erased.
capture_uses = Table(
    "capture_uses",
    metadata,
    Column("capture", BigInteger, primary_key=True, autoincrement=False),
    Column("job", String(32), primary_key=True),
)


# Erasures of the last day: a capture that was still waiting to be written is not written any more. The file of the
# database is rewritten after them: `scrub_begun_at`, `scrubbed`.
capture_erasures = Table(
    "capture_erasures",
    metadata,
    Column("number", _SERIAL, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("id", String(48)),
    Column("key", String(200)),  # its digest
    Column("until", Float),
    Column("at", Float, nullable=False),
    Column("scrub_begun_at", Float),
    Column("scrubbed", Boolean, nullable=False, server_default=false()),
)


# Append-only but for what is set once the capture is there (`id`, `version`, `capture`, `was_right`, `error`), and for
# `replaced_at`: set when a later entry of the same kind is about the same sample. Entries of erased captures lose their
# truth. Numbers are not used again.
feedback = Table(
    "feedback",
    metadata,
    Column("number", _SERIAL, primary_key=True, autoincrement=True),
    Column("model", String(64), nullable=False),
    Column("id", String(48)),  # of the prediction; null if it is known by its key alone
    Column("key", String(200)),
    Column("position", Integer, nullable=False),
    Column("version", Integer),
    Column("capture", BigInteger),
    Column("kind", String(16), nullable=False),  # correction, audit or outcome
    Column("drawn", String(16), nullable=False),  # how its sample was chosen: random, uncertain, kept
    Column("truth", JSON),
    Column("by", String(200), nullable=False),
    Column("at", Float, nullable=False),
    Column("replaced_at", Float),
    Column("was_right", Boolean),  # whether the answer was; null for values
    Column("error", Float),  # absolute, of values
    Index("feedback_by_id", "id", "position"),
    Index("feedback_by_key", "model", "key"),
    Index("feedback_by_capture", "capture"),
    Index("feedback_by_model", "model", "number"),
    sqlite_autoincrement=True,
)
