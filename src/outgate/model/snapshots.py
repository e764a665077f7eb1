"""What api and agent say to each other about snapshots. Documents, encoded by msgspec as JSON."""

from enum import StrEnum

import msgspec


class SnapshotRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Make a snapshot of the devbox's disk."""

    devbox_id: str


class SnapshotPhase(StrEnum):
    """How far the making of a snapshot is. The names are those of the API's states."""

    IN_PROGRESS = "in_progress"
    COMPLETE = "complete"
    ERROR = "error"


class SnapshotState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A snapshot as its host sees it: ``size_bytes`` of what it adds when complete, ``detail`` of what went wrong."""

    phase: SnapshotPhase
    size_bytes: int | None = None
    detail: str = ""


class SnapshotRemoval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether nothing is left of a snapshot. It is not removed while it is being made."""

    is_removed: bool
