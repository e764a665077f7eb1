"""Alembic revisions, packaged so that they run at start without any file beside the package."""
