"""Versions that drift, and the numeric form of captured answers."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """A version that drifts already is in the feed within a minute; the form of earlier captures is not known."""
    op.create_table(
        "drift_states",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("drifts", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("until", sa.Integer, nullable=False),
    )
    op.add_column("captures", sa.Column("form", sa.String(8)))


def downgrade() -> None:
    """Without the table and the column."""
    op.drop_column("captures", "form")
    op.drop_table("drift_states")
