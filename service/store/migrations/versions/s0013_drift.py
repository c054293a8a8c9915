"""Counts of what versions have answered, by minute, for drift."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Minutes are merged to hours after a day, and removed after TORCHLOOP_KEEP_DRIFT_DAYS."""
    op.create_table(
        "drift_counts",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("counts", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    """Without the table."""
    op.drop_table("drift_counts")
