"""Answers of the snapshot routes."""

from typing import Final

import msgspec

from outgate.control.snapshot_states import SnapshotStatus
from outgate.control.snapshots import SnapshotPage
from outgate.store.snapshots import SnapshotRow


class DevboxSnapshotView(msgspec.Struct, frozen=True):
    """A snapshot. ``size_bytes``: what it adds to the image that its source was made from; null until complete."""

    id: str
    create_time_ms: int
    metadata: dict[str, str]
    source_devbox_id: str
    source_blueprint_id: str | None
    name: str | None
    commit_message: str | None
    size_bytes: int | None


class DevboxSnapshotListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    snapshots: tuple[DevboxSnapshotView, ...]
    has_more: bool
    total_count: int | None


class DevboxSnapshotAsyncStatusView(msgspec.Struct, frozen=True):
    """How far a snapshot is. ``snapshot`` is there unless it was deleted, ``error_message`` when it failed."""

    status: SnapshotStatus
    error_message: str | None
    snapshot: DevboxSnapshotView | None


_METADATA: Final = msgspec.json.Decoder(dict[str, str])


def view_snapshot(row: SnapshotRow) -> DevboxSnapshotView:
    """The view of a snapshot."""
    return DevboxSnapshotView(
        id=row.id,
        create_time_ms=row.create_time_ms,
        metadata=_METADATA.decode(row.metadata),
        source_devbox_id=row.source_devbox_id,
        source_blueprint_id=row.source_blueprint_id,
        name=row.name,
        commit_message=row.commit_message,
        size_bytes=row.size_bytes,
    )


def view_snapshots(page: SnapshotPage) -> DevboxSnapshotListView:
    """The view of one page."""
    return DevboxSnapshotListView(tuple(map(view_snapshot, page.snapshots)), page.has_more, page.total_count)


def view_snapshot_status(row: SnapshotRow) -> DevboxSnapshotAsyncStatusView:
    """The view of how far a snapshot is."""
    status = SnapshotStatus(row.status)
    shown = None if status is SnapshotStatus.DELETED else view_snapshot(row)
    return DevboxSnapshotAsyncStatusView(status, row.error_message, shown)
