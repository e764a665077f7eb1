"""What becomes of storage objects by themselves: they expire, are given up, and are forgotten."""

import asyncio
from functools import partial
from typing import Final

from sqlalchemy import Connection

from outgate.control.objects import ObjectState, end_object
from outgate.control.services import Services
from outgate.store.configs import forget_deleted_configs
from outgate.store.objects import find_named_files, forget_ended_objects, has_due, list_due_locked, save_object
from outgate.store.secrets import forget_deleted_secrets

ABANDONED_AFTER_MS: Final = 24 * 3600 * 1000
"""An object that was not completed for this long is an ERROR: its upload URL works for an hour only."""
UNNAMED_AFTER_MS: Final = 3600 * 1000
"""A file that no row names is swept at this age. An upload under way was written to within its last minute."""
FORGOTTEN_AFTER_MS: Final = 7 * 24 * 3600 * 1000
"""What was deleted can still be read as deleted for this long; repeats of requests are answered for a day."""
_BATCH: Final = 500
"""Rows per transaction: a few milliseconds, so that no writer waits for the sweeping."""


async def end_due_objects(services: Services, now_ms: int) -> int:
    """End objects whose time is up and those that were given up; how many (one batch at most)."""
    abandoned_ms = now_ms - ABANDONED_AFTER_MS

    def end(tx: Connection) -> list[str | None]:
        due = list_due_locked(tx, now_ms=now_ms, abandoned_ms=abandoned_ms, limit=_BATCH)
        for row in due:
            is_expired = row.delete_after_time_ms is not None and row.delete_after_time_ms <= now_ms
            save_object(tx, end_object(row, ObjectState.DELETED if is_expired else ObjectState.ERROR, now_ms))
        return [row.file for row in due]

    # Asked each second: a look costs less than the writer's lock.
    if not await services.database.read(lambda tx: has_due(tx, now_ms=now_ms, abandoned_ms=abandoned_ms)):
        return 0
    files = await services.database.write(end)
    for file in files:
        if file is not None:
            await asyncio.to_thread(services.objects.remove, file)
    return len(files)


async def remove_unnamed_files(services: Services, now_ms: int) -> int:
    """Remove old files that no object names, which crashes leave; how many."""
    found = await asyncio.to_thread(services.objects.list_older, now_ms - UNNAMED_AFTER_MS)
    removed = 0
    for start in range(0, len(found), _BATCH):
        batch = found[start : start + _BATCH]
        named = await services.database.read(partial(find_named_files, files=batch))
        for file in batch:
            if file not in named:
                await asyncio.to_thread(services.objects.remove, file)
                removed += 1
    return removed


async def forget_deleted(services: Services, now_ms: int) -> int:
    """One batch of what was deleted long ago; how many. Zero means that there is nothing left to forget."""

    def forget(tx: Connection) -> int:
        before_ms = now_ms - FORGOTTEN_AFTER_MS
        return (
            forget_ended_objects(tx, before_ms=before_ms, limit=_BATCH)
            + forget_deleted_secrets(tx, before_ms=before_ms, limit=_BATCH)
            + forget_deleted_configs(tx, before_ms=before_ms, limit=_BATCH)
        )

    return await services.database.write(forget)
