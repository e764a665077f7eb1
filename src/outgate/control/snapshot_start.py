"""What a devbox from a snapshot starts from."""

from typing import Final

from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.ids import IdPrefix, is_id
from outgate.control.snapshot_states import SnapshotStatus
from outgate.control.start_images import StartImage
from outgate.errors import InvalidValueError
from outgate.store.snapshots import find_snapshot_locked

_FIELD: Final = "snapshot_id"


def find_snapshot_start(tx: Connection, call: Call, snapshot_id: str) -> StartImage:
    """The disk of the snapshot, and the policy that its source had; nothing else is handed on.

    The snapshot is not deleted before the transaction ends. Raises InvalidValueError for a snapshot that the account
    does not have, and for one that is not complete.
    """
    row = find_snapshot_locked(tx, call.account_id, snapshot_id) if is_id(IdPrefix.SNAPSHOT, snapshot_id) else None
    if row is None or row.status == SnapshotStatus.DELETED:
        message = f"There is no snapshot {snapshot_id[:80]!r} in this account."
        raise InvalidValueError(message, field=_FIELD, code="unknown_snapshot")
    if row.status != SnapshotStatus.COMPLETE:
        message = f"Snapshot {row.id} is {row.status}; only a complete one can be started from."
        raise InvalidValueError(message, field=_FIELD, code="snapshot_not_complete")
    return StartImage(image=row.id, host_id=row.host_id, snapshot_id=row.id, policy_id=row.policy_id)
