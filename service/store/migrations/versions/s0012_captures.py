"""Captures of answered samples, their settings, and feedback on them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_WITH_KEY = sa.text("key IS NOT NULL")


def upgrade() -> None:
    """Nothing is captured until settings say so."""
    op.create_table(
        "capture_settings",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("rate", sa.Float, nullable=False),
        sa.Column("max_examples", sa.BigInteger, nullable=False),
        sa.Column("max_bytes", sa.BigInteger, nullable=False),
        sa.Column("days", sa.Float, nullable=False),
        sa.Column("originals", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.Column("changed_by", sa.String(200), nullable=False),
        sa.Column("examples", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    )
    _create_captures()
    op.create_table(
        "capture_uses",
        sa.Column("capture", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("job", sa.String(32), primary_key=True),
    )
    op.create_table(
        "capture_erasures",
        sa.Column("number", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("id", sa.String(48)),
        sa.Column("key", sa.String(200)),
        sa.Column("until", sa.Float),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("scrub_begun_at", sa.Float),
        sa.Column("scrubbed", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    _create_feedback()


def _create_captures() -> None:
    op.create_table(
        "captures",
        sa.Column("number", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("id", sa.String(48), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("key", sa.String(200)),
        sa.Column("media_type", sa.String(100), nullable=False),
        sa.Column("code", sa.String(64)),
        sa.Column("backend", sa.String(16)),
        sa.Column("rate", sa.Float, nullable=False),
        sa.Column("draw", sa.Integer, nullable=False),
        sa.Column("probability", sa.Float),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("erased_at", sa.Float),
        sa.Column("pruned_at", sa.Float),
        sa.Column("said", sa.JSON),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("content", sa.LargeBinary),
        sa.Column("original", sa.LargeBinary),
        sa.UniqueConstraint("id", "position", name="captures_by_id"),
        sqlite_autoincrement=True,
    )
    covered = ["model", "state", "number", "version", "at", "probability", "draw"]
    op.create_index("captures_by_model", "captures", covered)
    op.create_index("captures_by_key", "captures", ["model", "key"], sqlite_where=_WITH_KEY, postgresql_where=_WITH_KEY)


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("number", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("id", sa.String(48)),
        sa.Column("key", sa.String(200)),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("capture", sa.BigInteger),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("drawn", sa.String(16), nullable=False),
        sa.Column("truth", sa.JSON),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("replaced_at", sa.Float),
        sa.Column("was_right", sa.Boolean),
        sa.Column("error", sa.Float),
        sqlite_autoincrement=True,
    )
    op.create_index("feedback_by_id", "feedback", ["id", "position"])
    op.create_index("feedback_by_key", "feedback", ["model", "key"])
    op.create_index("feedback_by_capture", "feedback", ["capture"])
    op.create_index("feedback_by_model", "feedback", ["model", "number"])


def downgrade() -> None:
    """Without captures and feedback."""
    for name in ("feedback", "capture_erasures", "capture_uses", "captures", "capture_settings"):
        op.drop_table(name)
