"""What the service manager is told of this process (sd_notify(3)): that it serves, lives, stops.

Without systemd nothing is set in the environment, and nothing is told.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

import structlog

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG_US: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"
_ROUNDS_PER_WATCHDOG: Final = 4
"""Looks within the time after which the manager gives up: one that fails is not the end."""


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Who started this process. ``address`` is None where nobody wants to know.

    ``watchdog_s``: the manager ends this process when it hears nothing for so long; None: it does not.
    """

    address: str | None = None
    watchdog_s: float | None = None

    def ready(self, status: str) -> None:
        """It serves; ``status`` is shown by ``systemctl status``."""
        self._tell(READY="1", STATUS=status)

    def stopping(self) -> None:
        """It was asked to end, and does."""
        self._tell(STOPPING="1")

    def alive(self) -> None:
        """It is as it should be."""
        self._tell(WATCHDOG="1")

    @property
    def look_s(self) -> float | None:
        """How often to look whether all is well, and how long a look may take; None without a watchdog."""
        return None if self.watchdog_s is None else self.watchdog_s / _ROUNDS_PER_WATCHDOG

    def _tell(self, **words: str) -> None:
        if self.address is None:
            return
        # A name that begins with @ has no file (unix(7): abstract).
        target = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        # A manager that is being started again must not end us.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
            telling.sendto(render_notice(words), target)


UNMANAGED: Final = ServiceManager()
"""Started by nobody who wants to know."""


def render_notice(words: Mapping[str, str]) -> bytes:
    """``words`` as the manager reads them: a line each, whatever the values hold."""
    return "\n".join(f"{name}={' '.join(value.split())}" for name, value in words.items()).encode()


def take_service_manager(environment: MutableMapping[str, str] | None = None) -> ServiceManager:
    """Whom the environment names. It is taken out of it: no child is to speak in this process's name."""
    given = os.environ if environment is None else environment
    address, watchdog_us, pid = (given.pop(name, "") for name in (_SOCKET, _WATCHDOG_US, _WATCHDOG_PID))
    if not address.startswith(("/", "@")):
        return UNMANAGED
    is_meant = watchdog_us.isascii() and watchdog_us.isdigit() and pid in ("", str(os.getpid()))
    return ServiceManager(address, int(watchdog_us) / 1e6 if is_meant and int(watchdog_us) else None)


async def keep_alive(manager: ServiceManager, is_well: Callable[[float], Awaitable[bool]]) -> None:
    """Until cancelled: tell the manager's watchdog that all is well, whenever ``is_well`` says so.

    ``is_well`` is told how many seconds it may take.
    """
    look_s = manager.look_s
    if look_s is None:
        await asyncio.Event().wait()
        return
    while True:
        if await is_well(look_s):
            manager.alive()
        else:
            structlog.get_logger("watchdog").error("not_well", watchdog_s=manager.watchdog_s)
        await asyncio.sleep(look_s)
