"""Jobs that write TensorBoard event files."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """The jobs that are there write none."""
    op.add_column("jobs", sa.Column("tensorboard", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Without the column."""
    op.drop_column("jobs", "tensorboard")
