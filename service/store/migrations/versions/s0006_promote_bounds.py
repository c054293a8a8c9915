"""Bounds of a job's promote policy: how sure the gate's comparison must be."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """The jobs that are there have none."""
    op.add_column("jobs", sa.Column("promote_bounds", sa.JSON))


def downgrade() -> None:
    """Without the column."""
    op.drop_column("jobs", "promote_bounds")
