"""Heartbeat counters in place of times until which a lease is valid, which each worker wrote by its own clock."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Jobs that are running get the default lease; it expires if their worker does not beat."""
    op.add_column("jobs", sa.Column("beats", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("lease_s", sa.Float, nullable=False, server_default="6"))
    op.drop_column("jobs", "lease_until")


def downgrade() -> None:
    """Return to the times; jobs that are running have expired."""
    op.add_column("jobs", sa.Column("lease_until", sa.Float))
    op.execute("UPDATE jobs SET lease_until = 0 WHERE state = 'running'")
    op.drop_column("jobs", "lease_s")
    op.drop_column("jobs", "beats")
