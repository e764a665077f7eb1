"""The table of tunnels."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table, Text, text

from outgate.store.tables import Id, metadata

tunnels: Final = Table(
    "tunnels",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("devbox_id", Id, ForeignKey("devboxes.id"), nullable=False),
    Column("document", Text, nullable=False),
    Column("remove_time_ms", BigInteger),
    Column("seq", BigInteger, nullable=False),
    # A devbox has one tunnel at a time; those it had before are kept, so that hosts hear of their end.
    Index(
        "uq_tunnels_live_devbox_id",
        "devbox_id",
        unique=True,
        sqlite_where=text("remove_time_ms IS NULL"),
        postgresql_where=text("remove_time_ms IS NULL"),
    ),
    Index("ix_tunnels_seq", "seq"),
)
