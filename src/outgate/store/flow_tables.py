"""What was decided: the flow log, and how far each host has told of it."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from outgate.store.tables import Id, metadata

# SQLite numbers rows by itself only in an INTEGER key.
_Number: Final = BigInteger().with_variant(Integer, "sqlite")

flows: Final = Table(
    "flows",
    metadata,
    # In the order of arrival, which is about that of time.
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("account_id", Id, nullable=False),
    Column("devbox_id", Id, nullable=False),
    Column("policy_id", Id, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("point", String(16), nullable=False),
    Column("rule", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("address", String(64), nullable=False),
    Column("port", Integer, nullable=False),
    Column("protocol", String(16), nullable=False),
    Column("bytes_out", BigInteger),
    Column("bytes_in", BigInteger),
    Column("duration_ms", BigInteger),
    # No foreign keys: the log outlives what it speaks of, and each would cost a look-up for every record.
    Index("ix_flows_account_id_number", "account_id", "number"),
    Index("ix_flows_account_id_verdict_number", "account_id", "verdict", "number"),
    Index("ix_flows_account_id_name_number", "account_id", "name", "number"),
    Index("ix_flows_time_ms", "time_ms"),
    Index("ix_flows_devbox_id_number", "devbox_id", "number"),
    Index("ix_flows_policy_id_number", "policy_id", "number"),
    # Numbers are cursors that readers keep: none is given twice, even when the last records were deleted.
    sqlite_autoincrement=True,
)

flow_feeds: Final = Table(
    "flow_feeds",
    metadata,
    Column("host_id", Id, ForeignKey("hosts.id"), primary_key=True),
    Column("boot_id", String(64), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("dropped", BigInteger, nullable=False),
)
