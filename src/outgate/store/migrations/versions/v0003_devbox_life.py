"""What the whole devbox life cycle adds to devboxes, and what hosts say they have."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns. A devbox that ran before counts its use from here on."""
    for column in (
        sa.Column("blueprint_id", ID),
        sa.Column("snapshot_id", ID),
        sa.Column("idle_s", sa.BigInteger),
        sa.Column("on_idle", sa.String(16)),
        sa.Column("run_ms", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("run_since_ms", sa.BigInteger),
    ):
        op.add_column("devboxes", column)
    for column in (
        sa.Column("architecture", sa.String(32)),
        sa.Column("cpu_cores", sa.BigInteger),
        sa.Column("memory_mib", sa.BigInteger),
    ):
        op.add_column("hosts", column)
