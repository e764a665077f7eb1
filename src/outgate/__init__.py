"""Outgate: sandboxes with an egress policy that holds."""

__version__ = "0.1.0"
