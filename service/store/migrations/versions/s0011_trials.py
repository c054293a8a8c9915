"""Trials of candidates: their rows, events, counters, keys with errors and differences; leaders of shared work."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Earlier nodes follow no trial."""
    op.add_column("nodes", sa.Column("trials", sa.JSON, nullable=False, server_default="{}"))
    _trials()
    _evidence()
    op.create_table(
        "leaders",
        sa.Column("work", sa.String(32), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )


def _trials() -> None:
    op.create_table(
        "trials",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("live", sa.Integer, nullable=False),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("key_header", sa.String(100)),
        sa.Column("conditions", sa.JSON, nullable=False),
        sa.Column("when_undecided", sa.String(16), nullable=False),
        sa.Column("max_s", sa.Float),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("stage_since", sa.Float, nullable=False),
        sa.Column("elapsed_s", sa.Float, nullable=False),
        sa.Column("decide_by", sa.Float),
        sa.Column("finished_at", sa.Float),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("job", sa.String(32)),
        sa.Column("reason", sa.String(2000), nullable=False),
    )
    is_open = sa.text("finished_at IS NULL")
    op.create_index("trials_by_model", "trials", ["model", "opened_at"])
    op.create_index("trials_open", "trials", ["model"], unique=True, sqlite_where=is_open, postgresql_where=is_open)
    op.create_table(
        "trial_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("trial", sa.String(32), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_index("trial_events_by_trial", "trial_events", ["trial", "id"])
    op.create_index("trial_events_by_model", "trial_events", ["model", "id"])


def _evidence() -> None:
    op.create_table(
        "trial_counts",
        sa.Column("trial", sa.String(32), primary_key=True),
        sa.Column("stage", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("process", sa.String(64), primary_key=True),
        sa.Column("arm", sa.String(16), primary_key=True),
        sa.Column("counts", sa.JSON, nullable=False),
    )
    op.create_table(
        "trial_keys",
        sa.Column("trial", sa.String(32), primary_key=True),
        sa.Column("stage", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("arm", sa.String(16), primary_key=True),
    )
    op.create_table(
        "trial_differences",
        sa.Column("trial", sa.String(32), primary_key=True),
        sa.Column("prediction", sa.String(64), primary_key=True),
        sa.Column("index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("live", sa.JSON, nullable=False),
        sa.Column("candidate", sa.JSON, nullable=False),
        sa.Column("better", sa.String(16)),
    )
    op.create_index("trial_differences_by_prediction", "trial_differences", ["prediction", "index"])


def downgrade() -> None:
    """Without trials; open ones end."""
    for table in ("leaders", "trial_differences", "trial_keys", "trial_counts", "trial_events", "trials"):
        op.drop_table(table)
    op.drop_column("nodes", "trials")
