"""The flow log."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ID = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "flows",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("devbox_id", ID, nullable=False),
        sa.Column("policy_id", ID, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("began_ms", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("point", sa.String(16), nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("sentence", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("protocol", sa.String(16), nullable=False),
        sa.Column("bytes_out", sa.BigInteger),
        sa.Column("bytes_in", sa.BigInteger),
        sa.Column("duration_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("number", name="pk_flows"),
        sqlite_autoincrement=True,
    )
    for columns in (("account_id",), ("account_id", "verdict"), ("account_id", "name"), ("devbox_id",), ("policy_id",)):
        op.create_index(f"ix_flows_{'_'.join(columns)}_number", "flows", [*columns, "number"])
    op.create_index("ix_flows_time_ms", "flows", ["time_ms"])
    op.create_table(
        "flow_feeds",
        sa.Column("host_id", ID, nullable=False),
        sa.Column("boot_id", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("dropped", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("host_id", name="pk_flow_feeds"),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name="fk_flow_feeds_host_id"),
    )
