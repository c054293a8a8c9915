"""Versions that were pruned: their rows stay, so that their numbers are not used again."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """None is pruned yet."""
    op.add_column("versions", sa.Column("pruned_at", sa.Float))


def downgrade() -> None:
    """Without the column; versions without files go with it."""
    op.execute("DELETE FROM versions WHERE pruned_at IS NOT NULL")
    op.drop_column("versions", "pruned_at")
