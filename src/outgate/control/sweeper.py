"""What nobody asks for: what is due is ended, old request keys and what was deleted long ago are forgotten."""

import asyncio
from typing import Final

import structlog

from outgate.clock import monotonic_s, wall_ms
from outgate.control.blueprints import end_overdue_builds
from outgate.control.console_sessions import forget_ended_sessions
from outgate.control.devbox_expiry import end_due_devboxes
from outgate.control.flows import forget_old_flows
from outgate.control.object_sweeping import end_due_objects, forget_deleted, remove_unnamed_files
from outgate.control.repeats import forget_old_requests
from outgate.control.services import Services
from outgate.control.terminal_access import forget_useless_access
from outgate.control.webhook_delivery import forget_old_webhooks
from outgate.store.errors import StoreError

EXPIRY_EVERY_S: Final = 1.0
CLEANING_EVERY_S: Final = 60.0

_log: Final = structlog.get_logger(__name__)


async def sweep_forever(services: Services) -> None:
    """Sweep until cancelled. A store that fails is tried again at the next turn."""
    cleaned_s = monotonic_s()
    while True:
        await asyncio.sleep(EXPIRY_EVERY_S)
        is_cleaning_due = monotonic_s() - cleaned_s >= CLEANING_EVERY_S
        try:
            await sweep(services, wall_ms(), is_cleaning_due=is_cleaning_due)
        except StoreError as error:
            _log.warning("sweep failed", error=error.message)
        if is_cleaning_due:
            cleaned_s = monotonic_s()


async def sweep(services: Services, now_ms: int, *, is_cleaning_due: bool) -> None:
    """One turn: all devboxes and objects that are due, and, when asked, everything that is old."""
    while await end_due_devboxes(services, now_ms):
        pass
    while await end_due_objects(services, now_ms):
        pass
    while await end_overdue_builds(services, now_ms):
        pass
    if is_cleaning_due:
        await _forget(services, now_ms)


async def _forget(services: Services, now_ms: int) -> None:
    """Everything that is old, batch by batch."""
    while await forget_old_requests(services, now_ms):
        pass
    while await forget_useless_access(services):
        pass
    while await forget_ended_sessions(services, now_ms):
        pass
    while await forget_deleted(services, now_ms):
        pass
    while await forget_old_flows(services, now_ms):
        pass
    while await forget_old_webhooks(services, now_ms):
        pass
    await remove_unnamed_files(services, now_ms)
