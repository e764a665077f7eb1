"""Blueprints."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
RUNNING = sa.text("finish_time_ms IS NULL")
LIVE = sa.text("delete_time_ms IS NULL")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "blueprints",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("host_id", ID, nullable=False),
        sa.Column("policy_id", ID, nullable=False),
        sa.Column("launch_policy_id", ID),
        sa.Column("base_blueprint_id", ID),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("failure_reason", sa.String(64)),
        sa.Column("create_time_ms", sa.BigInteger, nullable=False),
        sa.Column("finish_time_ms", sa.BigInteger),
        sa.Column("deadline_ms", sa.BigInteger, nullable=False),
        sa.Column("delete_time_ms", sa.BigInteger),
        sa.Column("released", sa.Boolean, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_blueprints"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_blueprints_account_id"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name="fk_blueprints_host_id"),
    )
    op.create_index("ix_blueprints_account_id_id", "blueprints", ["account_id", "id"])
    op.create_index("ix_blueprints_host_id_seq", "blueprints", ["host_id", "seq"])
    op.create_index("ix_blueprints_account_id_name", "blueprints", ["account_id", "name"])
    for name, column, where in (
        ("ix_blueprints_running_deadline", "deadline_ms", RUNNING),
        ("ix_blueprints_running_policy", "policy_id", RUNNING),
        ("ix_blueprints_live_launch_policy", "launch_policy_id", LIVE),
    ):
        op.create_index(name, "blueprints", [column], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "build_log_parts",
        sa.Column("blueprint_id", ID, nullable=False),
        sa.Column("attempt", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("lines", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("blueprint_id", "attempt", "number", name="pk_build_log_parts"),
        sa.ForeignKeyConstraint(["blueprint_id"], ["blueprints.id"], name="fk_build_log_parts_blueprint_id"),
    )
