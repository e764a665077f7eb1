"""Disk snapshots: create, describe, delete, read. (Their hosts' part is in ``snapshot_following``.)"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from outgate.clock import monotonic_s
from outgate.control.builtin_policies import BUILTIN_POLICIES
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devboxes import devbox_not_found
from outgate.control.errors import ConflictError, NotFoundError, WaitTimeoutError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.repeats import claim
from outgate.control.services import Services
from outgate.control.snapshot_following import begin_snapshot, refresh_snapshot
from outgate.control.snapshot_states import SnapshotStatus
from outgate.control.texts import parse_metadata, parse_short_text, parse_text
from outgate.control.transactions import read_as, write_as
from outgate.errors import InvalidValueError
from outgate.store.devboxes import DevboxRow, find_devbox_locked
from outgate.store.policies import lock_account
from outgate.store.snapshots import (
    SnapshotFilter,
    SnapshotRow,
    count_kept,
    count_listed,
    find_snapshot,
    find_snapshot_locked,
    insert_snapshot,
    list_snapshots,
    save_snapshot,
)

COMMIT_MESSAGE_LENGTH_MAX: Final = 1000
HOLD_S_MAX: Final = 590.0
"""Clients give ``snapshot_disk`` ten minutes."""
_HOST_WAIT_S: Final = 20.0
"""How long one question to a host stays open."""
_PAUSE_S: Final = 1.0
"""Before a host is asked again that did not hold the question open, or did not answer."""
_FIT: Final = frozenset({DevboxStatus.RUNNING, DevboxStatus.SUSPENDED})


@dataclass(frozen=True, slots=True)
class SnapshotInput:
    """What a caller says of a snapshot, of the right types and not yet judged. None: nothing."""

    name: str | None = None
    commit_message: str | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """One page. ``total_count`` is of all pages, or None when it was not asked for."""

    snapshots: tuple[SnapshotRow, ...]
    has_more: bool
    total_count: int | None


async def create_snapshot(services: Services, call: Call, devbox_id: str, given: SnapshotInput) -> SnapshotRow:
    """A new snapshot, begun on the devbox's host, or failed if that could not be.

    Raises NotFoundError, ConflictError when the devbox has no disk at rest or in use, InvalidValueError.
    """
    given = _parse(given)
    row, is_new = await write_as(services, call.caller, lambda tx: _create(tx, services, call, devbox_id, given))
    return await begin_snapshot(services, row) if is_new else row


def _create(
    tx: Connection, services: Services, call: Call, devbox_id: str, given: SnapshotInput
) -> tuple[SnapshotRow, bool]:
    snapshot_id = services.ids.make(IdPrefix.SNAPSHOT, call.now_ms)
    made = claim(tx, call.request, snapshot_id, call.now_ms)
    if made is not None:
        return _find_own(tx, call.caller, made), False
    lock_account(tx, call.account_id)
    devbox = find_devbox_locked(tx, call.account_id, devbox_id) if is_id(IdPrefix.DEVBOX, devbox_id) else None
    if devbox is None:
        raise devbox_not_found(devbox_id)
    if devbox.status not in _FIT:
        message = f"Devbox {devbox_id} is {devbox.status}; only running and suspended devboxes can be snapshotted."
        raise ConflictError(message, code="devbox_not_running")
    snapshots_max = services.settings.snapshots_max
    if count_kept(tx, call.account_id) >= snapshots_max:
        message = f"The account already has {snapshots_max} snapshots, the most it may have; delete one first."
        raise InvalidValueError(message, code="snapshot_limit")
    row = SnapshotRow(
        id=snapshot_id,
        account_id=call.account_id,
        host_id=devbox.host_id,
        source_devbox_id=devbox.id,
        source_blueprint_id=_find_blueprint(tx, devbox),
        # A default is not a choice: what starts from this gets the default of its own time.
        policy_id=None if devbox.policy_id in BUILTIN_POLICIES else devbox.policy_id,
        name=given.name,
        commit_message=given.commit_message,
        metadata=json.dumps(dict(given.metadata or {})),
        status=SnapshotStatus.IN_PROGRESS.value,
        error_message=None,
        size_bytes=None,
        create_time_ms=call.now_ms,
        begun=False,
        released=False,
    )
    insert_snapshot(tx, row)
    return row, True


def _find_blueprint(tx: Connection, devbox: DevboxRow) -> str | None:
    """The blueprint at the bottom of the devbox, be it through a snapshot."""
    if devbox.snapshot_id is None:
        return devbox.blueprint_id
    source = find_snapshot(tx, devbox.account_id, devbox.snapshot_id)
    return None if source is None else source.source_blueprint_id


async def await_snapshot(services: Services, caller: Caller, row: SnapshotRow) -> SnapshotRow:
    """The snapshot once it is complete.

    Raises ConflictError when it failed, and WaitTimeoutError when clients would stop waiting.
    """
    deadline_s = monotonic_s() + HOLD_S_MAX
    with services.waits.hold(caller.account_id, services.settings.waits_max):
        while row.status == SnapshotStatus.IN_PROGRESS:
            if monotonic_s() >= deadline_s:
                raise WaitTimeoutError(f"Snapshot {row.id} is not complete after {HOLD_S_MAX:g} s; it goes on.")
            asked_s = monotonic_s()
            row = await refresh_snapshot(services, row, _HOST_WAIT_S)
            if row.status == SnapshotStatus.IN_PROGRESS and monotonic_s() - asked_s < _PAUSE_S:
                await asyncio.sleep(_PAUSE_S)
    if row.status != SnapshotStatus.COMPLETE:
        message = f"Snapshot {row.id} is {row.status}: {row.error_message or 'somebody deleted it'}"
        raise ConflictError(message, code="snapshot_failed")
    return row


async def describe_snapshot(services: Services, call: Call, snapshot_id: str, given: SnapshotInput) -> SnapshotRow:
    """Change name, commit message or metadata; what is given replaces. Raises NotFoundError and InvalidValueError."""
    given = _parse(given)

    def describe(tx: Connection) -> SnapshotRow:
        row = _find_kept_locked(tx, call, snapshot_id)
        changed = replace(
            row,
            name=row.name if given.name is None else given.name,
            commit_message=row.commit_message if given.commit_message is None else given.commit_message,
            metadata=row.metadata if given.metadata is None else json.dumps(dict(given.metadata)),
        )
        save_snapshot(tx, changed)
        return changed

    return await write_as(services, call.caller, describe)


async def delete_snapshot(services: Services, call: Call, snapshot_id: str) -> None:
    """Delete the snapshot. Devboxes and snapshots that came from it keep all they need.

    Raises NotFoundError, and ConflictError while it is in progress.
    """

    def delete(tx: Connection) -> None:
        if claim(tx, call.request, snapshot_id, call.now_ms) is not None:
            return
        row = _find_kept_locked(tx, call, snapshot_id)
        if row.status == SnapshotStatus.IN_PROGRESS:
            message = f"Snapshot {snapshot_id} is not complete yet; wait for it, then delete it."
            raise ConflictError(message, code="snapshot_in_progress")
        save_snapshot(tx, replace(row, status=SnapshotStatus.DELETED.value))

    if not is_id(IdPrefix.SNAPSHOT, snapshot_id):
        raise _not_found(snapshot_id)
    await write_as(services, call.caller, delete)


async def get_snapshot(services: Services, caller: Caller, snapshot_id: str) -> SnapshotRow:
    """The snapshot as it is now, a deleted one too. Raises NotFoundError."""
    row = await read_as(services, caller, lambda tx: _find_own(tx, caller, snapshot_id))
    return await refresh_snapshot(services, row)


async def page_snapshots(
    services: Services, caller: Caller, wanted: SnapshotFilter, *, limit: int, count_total: bool
) -> SnapshotPage:
    """At most ``limit`` of the caller's snapshots, newest first, from after ``wanted.before`` on."""

    def read(tx: Connection) -> SnapshotPage:
        rows = list_snapshots(tx, caller.account_id, wanted, limit=limit + 1)
        total = count_listed(tx, caller.account_id, wanted) if count_total else None
        return SnapshotPage(tuple(rows[:limit]), len(rows) > limit, total)

    return await read_as(services, caller, read)


def _parse(given: SnapshotInput) -> SnapshotInput:
    message = given.commit_message
    return SnapshotInput(
        name=None if given.name is None else parse_short_text(given.name, field="name"),
        commit_message=None
        if message is None
        else parse_text(message, field="commit_message", length_max=COMMIT_MESSAGE_LENGTH_MAX),
        metadata=None if given.metadata is None else parse_metadata(given.metadata),
    )


def _find_own(tx: Connection, caller: Caller, snapshot_id: str) -> SnapshotRow:
    row = find_snapshot(tx, caller.account_id, snapshot_id) if is_id(IdPrefix.SNAPSHOT, snapshot_id) else None
    if row is None:
        raise _not_found(snapshot_id)
    return row


def _find_kept_locked(tx: Connection, call: Call, snapshot_id: str) -> SnapshotRow:
    row = find_snapshot_locked(tx, call.account_id, snapshot_id) if is_id(IdPrefix.SNAPSHOT, snapshot_id) else None
    if row is None or row.status == SnapshotStatus.DELETED:
        raise _not_found(snapshot_id)
    return row


def _not_found(snapshot_id: str) -> NotFoundError:
    shown = snapshot_id if is_id(IdPrefix.SNAPSHOT, snapshot_id) else repr(snapshot_id[:80])
    return NotFoundError(f"Snapshot {shown} not found.", code="snapshot_not_found")
