"""Disk snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# Written out, not taken from the tables' module: a migration must stay what it was when that module moves on.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "snapshots",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("host_id", ID, nullable=False),
        sa.Column("source_devbox_id", ID, nullable=False),
        sa.Column("source_blueprint_id", ID),
        sa.Column("policy_id", ID),
        sa.Column("name", sa.Text),
        sa.Column("commit_message", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_message", sa.Text),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("begun", sa.Boolean, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_snapshots_account_id"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name="fk_snapshots_host_id"),
    )
    op.create_index("ix_snapshots_account_id_id", "snapshots", ["account_id", "id"])
    op.create_index("ix_snapshots_source_devbox_id", "snapshots", ["source_devbox_id"])
    op.create_index("ix_snapshots_source_blueprint_id", "snapshots", ["source_blueprint_id"])
    for name, condition in (
        ("ix_snapshots_in_progress", "status = 'in_progress'"),
        ("ix_snapshots_unreleased", "status IN ('error', 'deleted') AND NOT released"),
    ):
        where = sa.text(condition)
        op.create_index(name, "snapshots", ["id"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "snapshot_metadata",
        sa.Column("snapshot_id", ID, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", "key", name="pk_snapshot_metadata"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_snapshot_metadata_snapshot_id"),
    )
