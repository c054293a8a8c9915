"""Training on feedback: jobs that wait for their dataset, and when models are retrained."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Earlier jobs wait for no dataset."""
    op.add_column("jobs", sa.Column("after", sa.String(32)))
    op.add_column("jobs", sa.Column("feedback", sa.JSON))
    op.create_index("jobs_by_after", "jobs", ["after"])
    op.create_table(
        "retrain",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("corrections", sa.Integer),
        sa.Column("every_s", sa.Float),
        sa.Column("on_drift", sa.Boolean, nullable=False),
        sa.Column("at_most_every_s", sa.Float, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("dataset", sa.String(80)),
        sa.Column("promote", sa.String(16), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
        sa.Column("submitter", sa.String(32), nullable=False),
        sa.Column("watermark", sa.BigInteger, nullable=False),
        sa.Column("queued_at", sa.Float),
        sa.Column("job", sa.String(32)),
        sa.Column("reason", sa.String(200)),
        sa.Column("fault", sa.String(2000)),
    )


def downgrade() -> None:
    """Without the table and the columns; jobs that wait for a dataset are queued as any other."""
    op.drop_table("retrain")
    op.drop_index("jobs_by_after", "jobs")
    for column in ("feedback", "after"):
        op.drop_column("jobs", column)
