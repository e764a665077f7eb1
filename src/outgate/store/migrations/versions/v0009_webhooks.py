"""Webhooks and what is to be delivered to them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "webhooks",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.Column("policy_ids", sa.Text, nullable=False),
        sa.Column("devbox_ids", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("old_sealed", sa.LargeBinary),
        sa.Column("old_until_ms", sa.BigInteger),
        sa.Column("key_fingerprint", sa.String(16), nullable=False),
        sa.Column("flow_cursor", sa.BigInteger, nullable=False),
        sa.Column("policy_cursor", sa.BigInteger, nullable=False),
        sa.Column("told_warnings", sa.Text, nullable=False),
        sa.Column("next_look_ms", sa.BigInteger, nullable=False),
        sa.Column("failing_since_ms", sa.BigInteger),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("lease", sa.String(32), nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger, nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("update_time_ms", sa.BigInteger, nullable=False),
        sa.Column("delete_time_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_webhooks_account_id"),
    )
    op.create_index("ix_webhooks_account_id_id", "webhooks", ["account_id", "id"])
    live = sa.text("delete_time_ms IS NULL")
    op.create_index(
        "ix_webhooks_live_key_fingerprint", "webhooks", ["key_fingerprint"], sqlite_where=live, postgresql_where=live
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", ID, nullable=False),
        sa.Column("webhook_id", ID, nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("next_try_ms", sa.BigInteger, nullable=False),
        sa.Column("last_try_ms", sa.BigInteger),
        sa.Column("end_time_ms", sa.BigInteger),
        sa.Column("response_code", sa.Integer),
        sa.Column("error", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name="fk_webhook_deliveries_webhook_id"),
    )
    op.create_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries", ["webhook_id", "id"])
    pending, ended = sa.text("state = 'pending'"), sa.text("end_time_ms IS NOT NULL")
    op.create_index(
        "ix_webhook_deliveries_pending",
        "webhook_deliveries",
        ["next_try_ms", "webhook_id"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_index(
        "ix_webhook_deliveries_ended",
        "webhook_deliveries",
        ["end_time_ms"],
        sqlite_where=ended,
        postgresql_where=ended,
    )
