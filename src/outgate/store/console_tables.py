"""Who is signed in to the console."""

from typing import Final

from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, Table

from outgate.store.tables import Id, metadata

console_sessions: Final = Table(
    "console_sessions",
    metadata,
    # The SHA-256 of the session's token, which is stored nowhere.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("account_id", Id, nullable=False),
    Column("key_id", Id, ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("seen_time_ms", BigInteger, nullable=False),
    Column("expire_time_ms", BigInteger, nullable=False, index=True),
)
