"""What ends without anybody asking: devboxes that nobody keeps alive, and devboxes that are idle.

A devbox with ``after_idle`` has no keep-alive time: what counts is when it was active last. It is while a command
runs in it, and at each access to its files, terminals, SSH connections and, where they are to count, tunnels.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import Connection

from outgate.control.devbox_states import (
    DevboxStatus,
    OnIdle,
    ShutdownReason,
    Step,
    end_by_request,
    lifetime_ms,
    suspend_by_request,
)
from outgate.control.devboxes import take_step, tell
from outgate.control.services import Services
from outgate.store.devboxes import (
    DevboxRow,
    DueDevbox,
    find_devbox_locked,
    list_due,
    note_activity_times,
    postpone_end,
)
from outgate.store.hosts import find_host
from outgate.store.snapshots import is_in_progress

DUE_BATCH_MAX: Final = 100
"""Devboxes ended per transaction batch, so that a thousand that are due together do not hold the writer for long."""
RETRY_MS: Final = 5_000
"""When a devbox that cannot be ended just now is looked at again."""
_SHARED_LAG_MS: Final = 2_000
"""Other api processes write their notes down every second; until then they are unknown here."""

_ANSWER_S_MAX: Final = 5.0
"""A host that does not say at once what runs on it must not keep others' devboxes from their end."""

_log: Final = structlog.get_logger(__name__)


def note_activity(services: Services, devbox_id: str, now_ms: int) -> None:
    """Somebody uses the devbox (which must be one that there is): it is not idle now. Costs next to nothing."""
    services.activity.note(devbox_id, now_ms)


async def store_activity(services: Services) -> None:
    """Write down what was noted since the last time."""
    noted = services.activity.take()
    if noted:
        await services.database.write(lambda tx: note_activity_times(tx, noted))


async def end_due_devboxes(services: Services, now_ms: int) -> int:
    """End, or suspend, one batch of devboxes whose time is up; how many were looked at. Zero: there are no more.

    Each of them is ended or gets another time, so that the next batch holds others.
    """
    await store_activity(services)
    idle_until_ms = now_ms - (_SHARED_LAG_MS if services.database.is_shared else 0)
    due = await services.database.read(
        lambda tx: list_due(tx, until_ms=now_ms, idle_until_ms=idle_until_ms, limit=DUE_BATCH_MAX)
    )
    last_ms = await asyncio.gather(*(_find_last_activity(services, devbox, now_ms) for devbox in due))
    for devbox, active_ms in zip(due, last_ms, strict=True):
        ended = await services.database.write(_end(devbox, active_ms, now_ms))
        if ended is not None:
            tell(services, ended)
    return len(due)


async def _find_last_activity(services: Services, devbox: DueDevbox, now_ms: int) -> int | None:
    """When a command of the devbox ended last: now, while one runs or nobody can say; None when none ever ran.

    None, too, where nobody has to know.
    """
    if devbox.idle_s is None:
        return None
    host = await services.database.read(lambda tx: find_host(tx, devbox.host_id))
    if host is None or host.url is None:
        return now_ms
    try:
        async with asyncio.timeout(_ANSWER_S_MAX):
            activity = await services.gateway.read_activity(host.url, devbox.id)
    except OSError as error:  # a TimeoutError is one
        _log.warning("activity unknown", devbox_id=devbox.id, error=str(error))
        return now_ms
    if activity is None:
        return None
    return now_ms if activity.running else activity.last_end_ms


def _end(devbox: DueDevbox, active_ms: int | None, now_ms: int) -> Callable[[Connection], DevboxRow | None]:
    def end(tx: Connection) -> DevboxRow | None:
        row = find_devbox_locked(tx, devbox.account_id, devbox.id)
        # It may have been kept alive, suspended or ended since it was listed.
        if row is None or row.end_time_ms is not None or row.expire_time_ms > now_ms:
            return None
        until_ms = _find_reprieve_ms(tx, row, active_ms, now_ms)
        if until_ms > now_ms:
            postpone_end(tx, row.id, until_ms=until_ms)
            return None
        step = decide_end(row, now_ms)
        return None if step is None else take_step(tx, step)

    return end


def _find_reprieve_ms(tx: Connection, row: DevboxRow, active_ms: int | None, now_ms: int) -> int:
    """Until when the devbox may stay."""
    if is_in_progress(tx, row.id):
        return now_ms + RETRY_MS  # somebody waits for its snapshot
    if row.idle_s is None:
        return row.expire_time_ms
    if row.status != DevboxStatus.RUNNING:
        return now_ms + RETRY_MS  # nobody can use it yet; its idle time begins when it runs
    return max(row.expire_time_ms, (active_ms or 0) + lifetime_ms(row))


def decide_end(row: DevboxRow, now_ms: int) -> Step | None:
    """What becomes of a devbox whose time is up."""
    if row.idle_s is None:
        return end_by_request(row, ShutdownReason.KEEP_ALIVE_TIMEOUT, now_ms)
    if row.on_idle == OnIdle.SUSPEND:
        return suspend_by_request(row, now_ms)
    return end_by_request(row, ShutdownReason.IDLE, now_ms)
