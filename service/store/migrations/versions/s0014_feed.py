"""Feed of all changes, and its deliveries to webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Earlier changes are not in the feed."""
    op.create_table(
        "feed",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("feed_by_time", "feed", ["at"])
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("stopped_at", sa.Float),
        sa.Column("reason", sa.String(200)),
    )
    op.create_table(
        "deliveries",
        sa.Column("entry", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("webhook", sa.String(32), primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float, nullable=False),
    )
    op.create_index("deliveries_due", "deliveries", ["webhook", "next_at"])


def downgrade() -> None:
    """Without the feed; what no webhook has confirmed is not sent."""
    for table in ("deliveries", "webhooks", "feed"):
        op.drop_table(table)
