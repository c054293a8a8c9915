"""The API key that queued a job, and the order of claims, for a queue that is fair between keys."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """The jobs that are there count as those of one key."""
    op.add_column("jobs", sa.Column("submitter", sa.String(32), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("claim", sa.Integer, nullable=False, server_default="0"))
    op.create_index("jobs_by_submitter", "jobs", ["submitter", "claim"])


def downgrade() -> None:
    """Without the columns."""
    op.drop_index("jobs_by_submitter", "jobs")
    op.drop_column("jobs", "claim")
    op.drop_column("jobs", "submitter")
