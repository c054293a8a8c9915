"""Services that run now: their loaded versions, and when they were last seen."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Each service writes its row when it starts."""
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("address", sa.String(300), nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("processes", sa.Integer, nullable=False),
        sa.Column("loaded", sa.JSON, nullable=False),
        sa.Column("load", sa.JSON, nullable=False),
        sa.Column("software", sa.String(200), nullable=False),
    )


def downgrade() -> None:
    """Without the table."""
    op.drop_table("nodes")
