"""Tunnels and SSH keys."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
LIVE_TUNNEL = sa.text("remove_time_ms IS NULL")


def upgrade() -> None:
    """Make the tables."""
    _create_tunnels()
    _create_terminal_access()


def _create_tunnels() -> None:
    op.create_table(
        "tunnels",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("devbox_id", ID, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("remove_time_ms", sa.BigInteger),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_tunnels"),
        sa.ForeignKeyConstraint(["devbox_id"], ["devboxes.id"], name="fk_tunnels_devbox_id"),
    )
    op.create_index(
        "uq_tunnels_live_devbox_id",
        "tunnels",
        ["devbox_id"],
        unique=True,
        sqlite_where=LIVE_TUNNEL,
        postgresql_where=LIVE_TUNNEL,
    )
    op.create_index("ix_tunnels_seq", "tunnels", ["seq"])


def _create_terminal_access() -> None:
    op.create_table(
        "ssh_keys",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("devbox_id", ID, nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_ssh_keys"),
        sa.ForeignKeyConstraint(["devbox_id"], ["devboxes.id"], name="fk_ssh_keys_devbox_id"),
    )
    op.create_index("ix_ssh_keys_devbox_id", "ssh_keys", ["devbox_id"])
    op.create_table(
        "pty_tunnels",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("devbox_id", ID, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_pty_tunnels"),
        sa.ForeignKeyConstraint(["devbox_id"], ["devboxes.id"], name="fk_pty_tunnels_devbox_id"),
    )
    op.create_index("ix_pty_tunnels_devbox_id", "pty_tunnels", ["devbox_id"])
