"""The first schema."""

import sqlalchemy as sa
from alembic import op

from outgate.model.plan import GRANT_FIRST

revision = "0001"
down_revision = None

# Written out, not taken from store.tables: a migration must stay what it was when that module moves on.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
LIVE_POLICY = sa.text("delete_time_ms IS NULL")
LIVE_DEVBOX = sa.text("end_time_ms IS NULL")
POLICY_NUMBER_FIRST = 16
"""Below are the built-in policies."""


def upgrade() -> None:
    """Make all tables and the row of counters."""
    _create_counters()
    _create_accounts()
    _create_policies()
    _create_hosts()
    _create_devboxes()
    _create_requests()


def _create_counters() -> None:
    counters = op.create_table(
        "counters",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("grant_next", sa.BigInteger, nullable=False),
        sa.Column("policy_number_next", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_counters"),
        sa.CheckConstraint("id = 1", name="ck_counters_single_row"),
    )
    row = {"id": 1, "seq": 1, "grant_next": GRANT_FIRST, "policy_number_next": POLICY_NUMBER_FIRST}
    op.bulk_insert(counters, [row])


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("lookup", sa.String(16), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("revoke_time_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_api_keys_account_id"),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
    op.create_index("ix_api_keys_lookup", "api_keys", ["lookup"])


def _create_policies() -> None:
    op.create_table(
        "policies",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("update_time_ms", sa.BigInteger, nullable=False),
        sa.Column("delete_time_ms", sa.BigInteger),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sa.UniqueConstraint("number", name="uq_policies_number"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_policies_account_id"),
    )
    op.create_index(
        "uq_policies_live_name",
        "policies",
        ["account_id", "name"],
        unique=True,
        sqlite_where=LIVE_POLICY,
        postgresql_where=LIVE_POLICY,
    )
    op.create_index("ix_policies_account_id_id", "policies", ["account_id", "id"])
    op.create_table(
        "policy_revisions",
        sa.Column("policy_id", ID, nullable=False),
        sa.Column("revision", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("policy_id", "revision", name="pk_policy_revisions"),
        sa.ForeignKeyConstraint(["policy_id"], ["policies.id"], name="fk_policy_revisions_policy_id"),
    )


def _create_hosts() -> None:
    op.create_table(
        "hosts",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("lookup", sa.String(16), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("boot_id", sa.Text),
        sa.Column("enforced", sa.BigInteger, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("warnings", sa.Text, nullable=False),
        sa.Column("seen_time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hosts"),
        sa.UniqueConstraint("name", name="uq_hosts_name"),
    )
    op.create_index("ix_hosts_lookup", "hosts", ["lookup"])


def _create_devboxes() -> None:
    op.create_table(
        "devboxes",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("host_id", ID, nullable=False),
        sa.Column("policy_id", ID, nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("launch_parameters", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("transitions", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("failure_reason", sa.String(64)),
        sa.Column("shutdown_reason", sa.String(64)),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("end_time_ms", sa.BigInteger),
        sa.Column("keep_alive_s", sa.BigInteger, nullable=False),
        sa.Column("expire_time_ms", sa.BigInteger, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_devboxes"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_devboxes_account_id"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name="fk_devboxes_host_id"),
    )
    op.create_index("ix_devboxes_account_id_id", "devboxes", ["account_id", "id"])
    op.create_index("ix_devboxes_host_id_seq", "devboxes", ["host_id", "seq"])
    for name, column in (("ix_devboxes_live_policy", "policy_id"), ("ix_devboxes_live_expiry", "expire_time_ms")):
        op.create_index(name, "devboxes", [column], sqlite_where=LIVE_DEVBOX, postgresql_where=LIVE_DEVBOX)


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("body_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("resource_id", ID, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_requests"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_requests_time_ms", "requests", ["time_ms"])
