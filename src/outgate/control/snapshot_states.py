"""Where a snapshot is: pure steps from one stored row to the next."""

from dataclasses import replace
from enum import StrEnum
from typing import Final

from outgate.control.texts import make_storable
from outgate.model.snapshots import SnapshotPhase, SnapshotState
from outgate.store.snapshots import SnapshotRow

BEGIN_MS_MAX: Final = 60_000
"""How long it may take until a snapshot has begun: its host is asked once, and has 30 s to answer."""
UNREACHABLE_MS_MAX: Final = 15 * 60_000
"""A snapshot of that age whose host does not answer counts as failed: clients stopped waiting after ten minutes."""


class SnapshotStatus(StrEnum):
    """The names are those of the wire."""

    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    ERROR = "error"
    DELETED = "deleted"


def observe_snapshot(row: SnapshotRow, state: SnapshotState | None, now_ms: int) -> SnapshotRow | None:
    """What the host's word changes, or None. ``state`` None: the host knows of no such snapshot."""
    if row.status != SnapshotStatus.IN_PROGRESS:
        return None
    if state is None:
        if not row.begun and now_ms - row.create_time_ms <= BEGIN_MS_MAX:
            return None
        return fail_snapshot(row, "Its host was restarted before the snapshot was complete.")
    match state.phase:
        case SnapshotPhase.IN_PROGRESS:
            return None
        case SnapshotPhase.COMPLETE:
            return replace(row, status=SnapshotStatus.COMPLETE.value, size_bytes=state.size_bytes)
        case SnapshotPhase.ERROR:
            return fail_snapshot(row, state.detail)


def begin(row: SnapshotRow, state: SnapshotState, now_ms: int) -> SnapshotRow:
    """The host has begun, and is as far as ``state`` says."""
    begun = replace(row, begun=True)
    return observe_snapshot(begun, state, now_ms) or begun


def miss_host(row: SnapshotRow, now_ms: int) -> SnapshotRow | None:
    """What it changes that the host does not answer, or None."""
    if row.status != SnapshotStatus.IN_PROGRESS or now_ms - row.create_time_ms <= UNREACHABLE_MS_MAX:
        return None
    return fail_snapshot(row, "Its host does not answer.")


def fail_snapshot(row: SnapshotRow, why: str) -> SnapshotRow:
    """The snapshot came to nothing."""
    return replace(row, status=SnapshotStatus.ERROR.value, error_message=make_storable(why))
