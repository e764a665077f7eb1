"""Answers of the secret routes. No value is ever among them."""

import msgspec

from outgate.control.secrets import SecretPage
from outgate.store.secrets import SecretRow


class SecretView(msgspec.Struct, frozen=True):
    """A secret without its value. Times are Unix milliseconds."""

    id: str
    name: str
    create_time_ms: int
    update_time_ms: int


class SecretListView(msgspec.Struct, frozen=True):
    """The newest secrets."""

    secrets: tuple[SecretView, ...]
    has_more: bool
    total_count: int


def view_secret(row: SecretRow) -> SecretView:
    """The view of a secret."""
    return SecretView(row.id, row.name, row.create_time_ms, row.update_time_ms)


def view_secrets(page: SecretPage) -> SecretListView:
    """The view of a page."""
    return SecretListView(tuple(view_secret(row) for row in page.secrets), page.has_more, page.total_count)
