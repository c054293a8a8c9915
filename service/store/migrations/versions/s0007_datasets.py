"""Datasets of users: their versions, uploads in parts, and jobs that ingest files or train on a dataset version."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_OF_JOBS = ("kind", "dataset", "dataset_sha256", "ingest", "report")


def upgrade() -> None:
    """The jobs that are there train on the data of their recipes."""
    op.add_column("jobs", sa.Column("kind", sa.String(16), nullable=False, server_default="train"))
    op.add_column("jobs", sa.Column("dataset", sa.String(80)))
    op.add_column("jobs", sa.Column("dataset_sha256", sa.String(64)))
    op.add_column("jobs", sa.Column("ingest", sa.JSON))
    op.add_column("jobs", sa.Column("report", sa.JSON))
    op.create_table(
        "datasets",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("folder", sa.String(300), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("parent", sa.String(80)),
        sa.Column("summary", sa.JSON, nullable=False),
        sa.Column("deleted_at", sa.Float),
        sa.Column("erased", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("job", sa.String(32)),
    )


def downgrade() -> None:
    """Without own datasets."""
    op.drop_table("uploads")
    op.drop_table("datasets")
    op.execute("DELETE FROM jobs WHERE kind <> 'train'")
    for name in _OF_JOBS:
        op.drop_column("jobs", name)
