"""Answers of the storage-object routes."""

import json

import msgspec

from outgate.control.objects import ObjectPage
from outgate.store.objects import ObjectRow


class ObjectView(msgspec.Struct, frozen=True):
    """A storage object. ``upload_url`` is there in the answer to its creation only."""

    id: str
    name: str
    content_type: str
    state: str
    create_time_ms: int
    size_bytes: int | None
    delete_after_time_ms: int | None
    metadata: dict[str, str]
    upload_url: str | None = None
    upload_headers: dict[str, str] | None = None


class ObjectListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    objects: tuple[ObjectView, ...]
    has_more: bool
    total_count: int | None


class ObjectDownloadURLView(msgspec.Struct, frozen=True):
    """Where the bytes can be had, without an API key, until the time that was asked for is up."""

    download_url: str


def view_object(row: ObjectRow, upload_url: str | None = None) -> ObjectView:
    """The view of an object."""
    return ObjectView(
        id=row.id,
        name=row.name,
        content_type=row.content_type,
        state=row.state,
        create_time_ms=row.create_time_ms,
        size_bytes=row.size_bytes,
        delete_after_time_ms=row.delete_after_time_ms,
        metadata=json.loads(row.metadata),
        upload_url=upload_url,
    )


def view_objects(page: ObjectPage) -> ObjectListView:
    """The view of a page."""
    return ObjectListView(tuple(view_object(row) for row in page.objects), page.has_more, page.total_count)
