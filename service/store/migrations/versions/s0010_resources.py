"""Resources that a job asks for."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Earlier jobs asked for none."""
    op.add_column("jobs", sa.Column("resources", sa.JSON))


def downgrade() -> None:
    """Without the column; jobs that ask for resources are queued as any other."""
    op.drop_column("jobs", "resources")
