"""Secrets, storage objects, gateway and MCP configurations, restricted keys."""

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
