"""Tables of webhooks: where events go, and what is on its way there."""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, text

from outgate.store.tables import Id, metadata

_LIVE: Final = text("delete_time_ms IS NULL")
_PENDING: Final = text("state = 'pending'")
_ENDED: Final = text("end_time_ms IS NOT NULL")

webhooks: Final = Table(
    "webhooks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("accounts.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False),
    # Lists, as JSON.
    Column("events", Text, nullable=False),
    Column("policy_ids", Text, nullable=False),
    Column("devbox_ids", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    # The secret, and the one before it while both sign; under the key that ``key_fingerprint`` tells from others.
    Column("sealed", LargeBinary, nullable=False),
    Column("old_sealed", LargeBinary),
    Column("old_until_ms", BigInteger),
    Column("key_fingerprint", String(16), nullable=False),
    # How far the log of flows and the sequence of changes were looked through, and which warnings were told of.
    Column("flow_cursor", BigInteger, nullable=False),
    Column("policy_cursor", BigInteger, nullable=False),
    Column("told_warnings", Text, nullable=False),
    Column("next_look_ms", BigInteger, nullable=False),
    # Since the last delivery that succeeded: when the first try failed, how many have, and how the last one did.
    Column("failing_since_ms", BigInteger),
    Column("failures", BigInteger, nullable=False),
    Column("problem", Text, nullable=False),
    # Who delivers to it at the moment, and until when nobody else does.
    Column("lease", String(32), nullable=False),
    Column("lease_until_ms", BigInteger, nullable=False),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("update_time_ms", BigInteger, nullable=False),
    Column("delete_time_ms", BigInteger),
    Index("ix_webhooks_account_id_id", "account_id", "id"),
    Index("ix_webhooks_live_key_fingerprint", "key_fingerprint", sqlite_where=_LIVE, postgresql_where=_LIVE),
)

webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("webhook_id", Id, ForeignKey("webhooks.id"), nullable=False),
    Column("event", String(32), nullable=False),
    Column("body", Text, nullable=False),
    # "pending", "delivered" or "failed".
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("create_time_ms", BigInteger, nullable=False),
    Column("next_try_ms", BigInteger, nullable=False),
    Column("last_try_ms", BigInteger),
    Column("end_time_ms", BigInteger),
    Column("response_code", Integer),
    Column("error", Text, nullable=False),
    Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
    Index(
        "ix_webhook_deliveries_pending", "next_try_ms", "webhook_id", sqlite_where=_PENDING, postgresql_where=_PENDING
    ),
    Index("ix_webhook_deliveries_ended", "end_time_ms", sqlite_where=_ENDED, postgresql_where=_ENDED),
)
