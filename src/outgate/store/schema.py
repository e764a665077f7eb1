"""Every table of the store, in one place for migrations and for the test that compares the two."""

from outgate.store.tables import metadata

__all__ = ["metadata"]
