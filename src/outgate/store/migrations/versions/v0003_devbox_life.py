"""What the whole devbox life cycle adds to devboxes."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
