"""Policies that only report: what was enforced so far goes on being enforced."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column to policies and to their versions."""
    for table in ("policies", "policy_revisions"):
        op.add_column(table, sa.Column("enforcement", sa.String(16), nullable=False, server_default="enforce"))
