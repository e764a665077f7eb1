"""What nobody asks for: devboxes whose time is up are ended, old request keys are forgotten."""

import asyncio
from typing import Final

import structlog

from outgate.clock import monotonic_s, wall_ms
from outgate.control.devboxes import end_expired_devboxes
from outgate.control.repeats import forget_old_requests
from outgate.control.services import Services
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
    """One turn: all devboxes that are due, and, when asked, all request keys that are old."""
    while await end_expired_devboxes(services, now_ms):
        pass
    while is_cleaning_due and await forget_old_requests(services, now_ms):
        pass
