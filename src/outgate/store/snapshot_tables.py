"""Tables of disk snapshots."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, String, Table, Text, text

from outgate.store.tables import Id, metadata

snapshots: Final = Table(
    "snapshots",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    # The host that keeps the disk.
    Column("host_id", Id, ForeignKey("hosts.id"), nullable=False),
    Column("source_devbox_id", Id, nullable=False),
    Column("source_blueprint_id", Id),
    # What a devbox from the snapshot inherits; null: the server's default.
    Column("policy_id", Id),
    Column("name", Text),
    Column("commit_message", Text),
    Column("metadata", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("error_message", Text),
    Column("size_bytes", BigInteger),
    Column("create_time_ms", BigInteger, nullable=False),
    # True once its host said that it began.
    Column("begun", Boolean, nullable=False),
    # True once nothing is left of it on its host, and nothing will be.
    Column("released", Boolean, nullable=False),
    Index("ix_snapshots_account_id_id", "account_id", "id"),
    Index("ix_snapshots_source_devbox_id", "source_devbox_id"),
    Index("ix_snapshots_source_blueprint_id", "source_blueprint_id"),
    Index(
        "ix_snapshots_in_progress",
        "id",
        sqlite_where=text("status = 'in_progress'"),
        postgresql_where=text("status = 'in_progress'"),
    ),
    Index(
        "ix_snapshots_unreleased",
        "id",
        sqlite_where=text("status IN ('error', 'deleted') AND NOT released"),
        postgresql_where=text("status IN ('error', 'deleted') AND NOT released"),
    ),
)

# The entries of ``snapshots.metadata``, to find snapshots by.
snapshot_metadata: Final = Table(
    "snapshot_metadata",
    metadata,
    Column("snapshot_id", Id, ForeignKey("snapshots.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
