"""Where a terminal's devbox is, for whoever showed a key or a token that opens it; and that terminals are used."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection

from outgate.clock import wall_ms
from outgate.control.devbox_states import DevboxStatus, decode_devbox
from outgate.control.devboxes import devbox_not_found
from outgate.control.errors import ConflictError, HostUnavailableError
from outgate.control.services import Services
from outgate.errors import InvalidValueError
from outgate.store.devboxes import DevboxRow, find_devbox, note_activity_times
from outgate.store.errors import StoreError
from outgate.store.hosts import find_host
from outgate.store.terminal_access import forget_access_to_ended

_FORGOTTEN_BATCH: Final = 1000
TELL_EVERY_S: Final = 5.0
"""Idle times are given in seconds and mostly minutes."""

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TerminalPlace:
    """A devbox, who works in it, and where its agent is. ``boot`` counts its boots."""

    account_id: str
    devbox_id: str
    username: str
    url: str
    boot: int


async def find_running(services: Services, account_id: str, devbox_id: str) -> TerminalPlace:
    """The running devbox. Raises NotFoundError, ConflictError when it does not run, HostUnavailableError."""
    return await services.database.read(lambda tx: _find_running(tx, account_id, devbox_id))


def _find_running(tx: Connection, account_id: str, devbox_id: str) -> TerminalPlace:
    row = find_devbox(tx, account_id, devbox_id)
    if row is None:
        raise devbox_not_found(devbox_id)
    if row.status != DevboxStatus.RUNNING:
        message = f"Devbox {devbox_id} is {row.status}; terminals are open in running devboxes only."
        raise ConflictError(message, code="devbox_not_running")
    host = find_host(tx, row.host_id)
    if host is None or host.url is None:
        raise HostUnavailableError(f"The host of devbox {devbox_id} has not reported yet; try again in a moment.")
    document = decode_devbox(row.document)
    return TerminalPlace(account_id, devbox_id, document.username, host.url, document.generation)


def check_is_running(row: DevboxRow) -> None:
    """Raises InvalidValueError unless the devbox runs: a way into another one would lead nowhere."""
    if row.status != DevboxStatus.RUNNING:
        message = f"Devbox {row.id} is {row.status}; this needs a running devbox."
        raise InvalidValueError(message, code="devbox_not_running")


class TerminalActivity:
    """Which devboxes' terminals were used, told to the store every few seconds. Belongs to the event loop's thread."""

    def __init__(self, *, tell_every_s: float = TELL_EVERY_S) -> None:
        self._used: set[str] = set()
        self._tell_every_s = tell_every_s

    def note(self, devbox_id: str) -> None:
        """Bytes went to or from the devbox: it is not idle."""
        self._used.add(devbox_id)

    async def run(self, services: Services) -> None:
        """Tell the store until cancelled. A store that fails is told again."""
        while True:
            await asyncio.sleep(self._tell_every_s)
            if not self._used:
                continue
            used, self._used = self._used, set()
            try:
                await services.database.write(_note_all(dict.fromkeys(used, wall_ms())))
            except StoreError as error:
                self._used |= used
                _log.warning("activity not noted", error=error.message)


def _note_all(times_ms: dict[str, int]) -> Callable[[Connection], None]:
    return lambda tx: note_activity_times(tx, times_ms)


async def forget_useless_access(services: Services) -> int:
    """Forget keys and PTY tunnels of devboxes that have ended, one batch; how many they were."""
    return await services.database.write(lambda tx: forget_access_to_ended(tx, limit=_FORGOTTEN_BATCH))
