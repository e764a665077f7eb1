"""Tables of blueprints and of what their builds said."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from outgate.store.tables import Id, metadata

blueprints: Final = Table(
    "blueprints",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    Column("host_id", Id, ForeignKey("hosts.id"), nullable=False),
    # Of the build alone.
    Column("policy_id", Id, nullable=False),
    # What devboxes from the blueprint inherit, if it says anything about that.
    Column("launch_policy_id", Id),
    Column("base_blueprint_id", Id),
    Column("key_id", Id, nullable=False),
    Column("name", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("document", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("failure_reason", String(64)),
    Column("create_time_ms", BigInteger, nullable=False),
    # When the build ended, well or badly.
    Column("finish_time_ms", BigInteger),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("delete_time_ms", BigInteger),
    Column("released", Boolean, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Index("ix_blueprints_account_id_id", "account_id", "id"),
    Index("ix_blueprints_host_id_seq", "host_id", "seq"),
    Index("ix_blueprints_account_id_name", "account_id", "name"),
    Index(
        "ix_blueprints_running_deadline",
        "deadline_ms",
        sqlite_where=text("finish_time_ms IS NULL"),
        postgresql_where=text("finish_time_ms IS NULL"),
    ),
    Index(
        "ix_blueprints_running_policy",
        "policy_id",
        sqlite_where=text("finish_time_ms IS NULL"),
        postgresql_where=text("finish_time_ms IS NULL"),
    ),
    Index(
        "ix_blueprints_live_launch_policy",
        "launch_policy_id",
        sqlite_where=text("delete_time_ms IS NULL"),
        postgresql_where=text("delete_time_ms IS NULL"),
    ),
)

build_log_parts: Final = Table(
    "build_log_parts",
    metadata,
    Column("blueprint_id", Id, ForeignKey("blueprints.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("lines", Text, nullable=False),
)
