"""Secrets, storage objects, gateway and MCP configurations, restricted keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Written out, not taken from the tables' module: a migration must stay what it was when that module moves on.
ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
LIVE = sa.text("delete_time_ms IS NULL")


def upgrade() -> None:
    """Make the tables."""
    _restrict_keys()
    _create_objects()
    _create_secrets()
    _create_configs()


def _restrict_keys() -> None:
    op.add_column("api_keys", sa.Column("scopes", sa.Text))
    op.add_column("api_keys", sa.Column("expire_time_ms", sa.BigInteger))


def _create_objects() -> None:
    op.create_table(
        "objects",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("content_type", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("file", sa.String(128)),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("delete_after_time_ms", sa.BigInteger),
        sa.Column("end_time_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_objects"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_objects_account_id"),
    )
    op.create_index("ix_objects_account_id_id", "objects", ["account_id", "id"])
    op.create_index("ix_objects_file", "objects", ["file"])
    for name, column, condition in (
        ("ix_objects_live_expiry", "delete_after_time_ms", "end_time_ms IS NULL"),
        ("ix_objects_uploading", "create_time_ms", "state = 'UPLOADING'"),
        ("ix_objects_ended", "end_time_ms", "end_time_ms IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "objects", [column], sqlite_where=where, postgresql_where=where)


def _create_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("key_fingerprint", sa.String(16), nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("update_time_ms", sa.BigInteger, nullable=False),
        sa.Column("delete_time_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_secrets"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_secrets_account_id"),
    )
    op.create_index(
        "uq_secrets_live_name",
        "secrets",
        ["account_id", "name"],
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    op.create_index("ix_secrets_account_id_id", "secrets", ["account_id", "id"])
    op.create_index(
        "ix_secrets_live_key_fingerprint", "secrets", ["key_fingerprint"], sqlite_where=LIVE, postgresql_where=LIVE
    )


def _create_configs() -> None:
    op.create_table(
        "configs",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("delete_time_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_configs"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_configs_account_id"),
    )
    op.create_index(
        "uq_configs_live_name",
        "configs",
        ["account_id", "kind", "name"],
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    op.create_index("ix_configs_account_id_id", "configs", ["account_id", "id"])
    op.create_table(
        "config_uses",
        sa.Column("config_id", ID, nullable=False),
        sa.Column("devbox_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("config_id", "devbox_id", name="pk_config_uses"),
        sa.ForeignKeyConstraint(["config_id"], ["configs.id"], name="fk_config_uses_config_id"),
        sa.ForeignKeyConstraint(["devbox_id"], ["devboxes.id"], name="fk_config_uses_devbox_id"),
    )
