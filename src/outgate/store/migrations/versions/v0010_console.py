"""Sessions of the console."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "console_sessions",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_time_ms", sa.BigInteger, nullable=False),
        sa.Column("expire_time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_console_sessions"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_console_sessions_key_id"),
    )
    op.create_index("ix_console_sessions_key_id", "console_sessions", ["key_id"])
    op.create_index("ix_console_sessions_expire_time_ms", "console_sessions", ["expire_time_ms"])
