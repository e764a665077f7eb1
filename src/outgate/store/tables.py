"""The tables. ``migrations`` builds them; a test compares the two.

Times are Unix milliseconds. Documents are JSON texts made by msgspec from :mod:`outgate.model.desired`
structs, so that what the agent is told is what was stored. ``seq`` is the value of ``counters.seq`` in the
transaction that last changed the row in a way its host must hear of.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# Ids are compared by bytes: their order is the order of creation (PostgreSQL would use the locale's order).
Id: Final = String(64).with_variant(String(64, collation="C"), "postgresql")

counters: Final = Table(
    "counters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("grant_next", BigInteger, nullable=False),
    Column("policy_number_next", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single_row"),
)

accounts: Final = Table(
    "accounts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("create_time_ms", BigInteger, nullable=False),
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("lookup", String(16), nullable=False, index=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("revoke_time_ms", BigInteger),
    # What a restricted key may do, as JSON; null: everything.
    Column("scopes", Text),
    Column("expire_time_ms", BigInteger),
)

policies: Final = Table(
    "policies",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("revision", BigInteger, nullable=False),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("update_time_ms", BigInteger, nullable=False),
    Column("delete_time_ms", BigInteger),
    Column("seq", BigInteger, nullable=False),
    # As in the current version's document, to be listed by.
    Column("enforcement", String(16), nullable=False, server_default="enforce"),
    # Names are unique among an account's live policies; a deleted one gives its name back.
    Index(
        "uq_policies_live_name",
        "account_id",
        "name",
        unique=True,
        sqlite_where=text("delete_time_ms IS NULL"),
        postgresql_where=text("delete_time_ms IS NULL"),
    ),
    Index("ix_policies_account_id_id", "account_id", "id"),
)

policy_revisions: Final = Table(
    "policy_revisions",
    metadata,
    Column("policy_id", Id, ForeignKey("policies.id"), primary_key=True),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("account_id", Id, nullable=False),
    Column("description", Text),
    Column("document", Text, nullable=False),
    Column("key_id", Id, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("enforcement", String(16), nullable=False, server_default="enforce"),
)

hosts: Final = Table(
    "hosts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("lookup", String(16), nullable=False, index=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("url", Text),
    Column("boot_id", Text),
    Column("enforced", BigInteger, nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("warnings", Text, nullable=False),
    Column("seen_time_ms", BigInteger, nullable=False),
    Column("architecture", String(32)),
    Column("cpu_cores", BigInteger),
    Column("memory_mib", BigInteger),
)

devboxes: Final = Table(
    "devboxes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    Column("host_id", Id, ForeignKey("hosts.id"), nullable=False),
    Column("policy_id", Id, nullable=False),
    Column("key_id", Id, nullable=False),
    Column("name", Text),
    Column("metadata", Text, nullable=False),
    Column("launch_parameters", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("transitions", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("failure_reason", String(64)),
    Column("shutdown_reason", String(64)),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("end_time_ms", BigInteger),
    Column("keep_alive_s", BigInteger, nullable=False),
    Column("expire_time_ms", BigInteger, nullable=False),
    Column("released", Boolean, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("blueprint_id", Id),
    Column("snapshot_id", Id),
    Column("idle_s", BigInteger),
    Column("on_idle", String(16)),
    Column("run_ms", BigInteger, nullable=False, server_default=text("0")),
    Column("run_since_ms", BigInteger),
    Index("ix_devboxes_account_id_id", "account_id", "id"),
    Index("ix_devboxes_host_id_seq", "host_id", "seq"),
    Index(
        "ix_devboxes_live_policy",
        "policy_id",
        sqlite_where=text("end_time_ms IS NULL"),
        postgresql_where=text("end_time_ms IS NULL"),
    ),
    Index(
        "ix_devboxes_live_expiry",
        "expire_time_ms",
        sqlite_where=text("end_time_ms IS NULL"),
        postgresql_where=text("end_time_ms IS NULL"),
    ),
)

requests: Final = Table(
    "requests",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("body_digest", LargeBinary(32), nullable=False),
    Column("resource_id", Id, nullable=False),
    Column("time_ms", BigInteger, nullable=False, index=True),
    # The digest is the whole key; a rowid table would store it twice.
    sqlite_with_rowid=False,
)
