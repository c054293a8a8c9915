"""From which capture on all are kept: those before are no sample of all answers."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Captures of earlier versions count as whole until retention removes some."""
    op.add_column(
        "capture_settings", sa.Column("whole_from", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    )


def downgrade() -> None:
    """Without the column."""
    op.drop_column("capture_settings", "whole_from")
