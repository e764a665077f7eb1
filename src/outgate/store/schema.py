"""Every table of the store, in one place for migrations and for the test that compares the two."""

from outgate.store import (
    blueprint_tables,
    console_tables,
    flow_tables,
    resource_tables,
    snapshot_tables,
    terminal_tables,
    tunnel_tables,
    webhook_tables,
)
from outgate.store.tables import metadata

__all__ = [
    "blueprint_tables",
    "console_tables",
    "flow_tables",
    "metadata",
    "resource_tables",
    "snapshot_tables",
    "terminal_tables",
    "tunnel_tables",
    "webhook_tables",
]
