"""Idempotency keys of rollbacks, so that a repeat does not go one version further back."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """The rollbacks that are there have none."""
    op.add_column("promotions", sa.Column("idempotency_key", sa.String(200)))
    op.create_index("promotions_by_key", "promotions", ["idempotency_key"], unique=True)


def downgrade() -> None:
    """Without the column."""
    op.drop_index("promotions_by_key", "promotions")
    op.drop_column("promotions", "idempotency_key")
