"""Tables of what an account keeps beside its devboxes: storage objects, secrets, configurations."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, String, Table, Text, text

from outgate.store.tables import Id, metadata

_LIVE: Final = text("delete_time_ms IS NULL")

objects: Final = Table(
    "objects",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("content_type", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("metadata", Text, nullable=False),
    Column("size_bytes", BigInteger),
    # The file below the objects' directory that holds the bytes. What no row names is swept away.
    Column("file", String(128)),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("delete_after_time_ms", BigInteger),
    # When the object came to its last state, DELETED or ERROR.
    Column("end_time_ms", BigInteger),
    Index("ix_objects_account_id_id", "account_id", "id"),
    Index("ix_objects_file", "file"),
    Index(
        "ix_objects_live_expiry",
        "delete_after_time_ms",
        sqlite_where=text("end_time_ms IS NULL"),
        postgresql_where=text("end_time_ms IS NULL"),
    ),
    Index(
        "ix_objects_uploading",
        "create_time_ms",
        sqlite_where=text("state = 'UPLOADING'"),
        postgresql_where=text("state = 'UPLOADING'"),
    ),
    Index(
        "ix_objects_ended",
        "end_time_ms",
        sqlite_where=text("end_time_ms IS NOT NULL"),
        postgresql_where=text("end_time_ms IS NOT NULL"),
    ),
)

secrets: Final = Table(
    "secrets",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    # Encrypted under the key that ``key_fingerprint`` tells from others; empty once the secret is deleted.
    Column("sealed", LargeBinary, nullable=False),
    Column("key_fingerprint", String(16), nullable=False),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("update_time_ms", BigInteger, nullable=False),
    Column("delete_time_ms", BigInteger),
    Index("uq_secrets_live_name", "account_id", "name", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
    Index("ix_secrets_account_id_id", "account_id", "id"),
    Index("ix_secrets_live_key_fingerprint", "key_fingerprint", sqlite_where=_LIVE, postgresql_where=_LIVE),
)

configs: Final = Table(
    "configs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    # "gateway" or "mcp".
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("delete_time_ms", BigInteger),
    Index(
        "uq_configs_live_name",
        "account_id",
        "kind",
        "name",
        unique=True,
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    ),
    Index("ix_configs_account_id_id", "account_id", "id"),
)

config_uses: Final = Table(
    "config_uses",
    metadata,
    Column("config_id", Id, ForeignKey("configs.id"), primary_key=True),
    Column("devbox_id", Id, ForeignKey("devboxes.id"), primary_key=True),
)
