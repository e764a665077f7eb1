"""What hosts say of snapshots, and what they are told to clear away.

Whoever looks at a snapshot that is in progress asks its host how far it is (:func:`refresh_snapshot`); what ends it
is stored once, whoever hears of it first. For those that nobody looks at there is :func:`follow_snapshots_forever`. So
it does not matter which process began a snapshot, or whether that still lives.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from sqlalchemy import Connection

from outgate.clock import monotonic_s, wall_ms
from outgate.control.services import Services
from outgate.control.snapshot_states import SnapshotStatus, begin, fail_snapshot, miss_host, observe_snapshot
from outgate.store.errors import StoreError
from outgate.store.hosts import find_host
from outgate.store.snapshots import (
    SnapshotRow,
    find_snapshot_locked,
    list_in_progress,
    list_unreleased,
    save_snapshot,
)

LOOK_EVERY_S: Final = 1.0
FOLLOWED_MAX: Final = 200
"""Snapshots looked after in one turn, so that one turn stays short; the oldest first."""
HOST_PAUSE_S: Final = 30.0
"""Before a host is troubled again that did not answer when something was to be cleared away."""

_log: Final = structlog.get_logger(__name__)


async def begin_snapshot(services: Services, row: SnapshotRow) -> SnapshotRow:
    """Ask the host to begin; the snapshot as it is then. One that could not be begun has failed."""
    url = await _find_url(services, row)
    try:
        state = None if url is None else await services.gateway.start_snapshot(url, row.id, row.source_devbox_id)
    except OSError as error:
        _log.warning("snapshot not begun", snapshot_id=row.id, error=str(error))
        state = None
    if state is None:
        return await _store(services, row, lambda now: fail_snapshot(now, "Its host does not answer."))
    return await _store(services, row, lambda now: begin(now, state, wall_ms()))


async def refresh_snapshot(services: Services, row: SnapshotRow, wait_s: float = 0.0) -> SnapshotRow:
    """The snapshot as its host sees it; where the host can say, as soon as it is over or after ``wait_s``."""
    if row.status != SnapshotStatus.IN_PROGRESS:
        return row
    url = await _find_url(services, row)
    try:
        if url is None:
            raise ConnectionRefusedError("the host has not reported yet")
        state = await services.gateway.read_snapshot(url, row.id, wait_s=wait_s)
    except OSError:
        return await _store(services, row, lambda now: miss_host(now, wall_ms()))
    return await _store(services, row, lambda now: observe_snapshot(now, state, wall_ms()))


async def follow_snapshots_forever(services: Services) -> None:
    """Look after all snapshots until cancelled. A store that fails is tried again at the next turn."""
    follower = SnapshotFollower(services)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await follower.look()
        except StoreError as error:
            _log.warning("following snapshots failed", error=error.message)


class SnapshotFollower:
    """Looks after the snapshots of all accounts. Several api processes may do so at once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._not_before_s: dict[str, float] = {}
        """Hosts that did not answer. As few as there are hosts."""

    async def look(self) -> None:
        """One turn: end what is over, clear away what is not wanted any more."""
        read = self._services.database.read
        in_progress = await read(lambda tx: list_in_progress(tx, limit=FOLLOWED_MAX))
        await asyncio.gather(*(refresh_snapshot(self._services, row) for row in in_progress))
        for row in await read(lambda tx: list_unreleased(tx, limit=FOLLOWED_MAX)):
            if monotonic_s() >= self._not_before_s.get(row.host_id, 0.0):
                await self._release(row)

    async def _release(self, row: SnapshotRow) -> None:
        url = await _find_url(self._services, row)
        try:
            removal = None if url is None else await self._services.gateway.remove_snapshot(url, row.id)
        except OSError as error:
            _log.warning("snapshot not cleared away", snapshot_id=row.id, error=str(error))
            removal = None
        if removal is None:
            self._not_before_s[row.host_id] = monotonic_s() + HOST_PAUSE_S
        elif removal.is_removed:
            await _store(self._services, row, lambda now: replace(now, released=True))


async def _find_url(services: Services, row: SnapshotRow) -> str | None:
    host = await services.database.read(lambda tx: find_host(tx, row.host_id))
    return None if host is None else host.url


async def _store(
    services: Services, row: SnapshotRow, change: Callable[[SnapshotRow], SnapshotRow | None]
) -> SnapshotRow:
    """The snapshot after ``change``, which is given what is stored now and may decline."""

    def store(tx: Connection) -> SnapshotRow:
        now = find_snapshot_locked(tx, row.account_id, row.id)
        if now is None:  # pragma: no cover - rows are never removed
            return row
        changed = change(now)
        if changed is None:
            return now
        save_snapshot(tx, changed)
        return changed

    # Most answers change nothing, and a look must not cost a commit.
    if change(row) is None:
        return row
    return await services.database.write(store)
