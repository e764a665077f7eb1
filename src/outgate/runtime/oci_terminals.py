"""The part of the OCI driver that runs programs whose streams somebody outside holds."""

import asyncio
import signal
from typing import Final

from outgate.runtime.base import TerminalSpec
from outgate.runtime.checks import check_terminal
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.oci_commands import CommandHost, OciCommands
from outgate.runtime.terminals import Terminal, TerminalStarter

_HANG_UP_S: Final = 2.0
"""What a program is given to put its things in order after its terminal was hung up."""


class OciTerminals(OciCommands):
    """Terminals besides executions. Unlike those they end with the process that opened them."""

    def __init__(self, host: CommandHost) -> None:
        super().__init__(host)
        self._terminals = TerminalStarter(host.engine, host.facts, host.run_dir / "terminals")
        self._terminals_opened = 0

    async def open_terminal(self, devbox_id: str, spec: TerminalSpec) -> Terminal:
        """Start a program with its streams in this process; they are the caller's then.

        Raises :class:`SandboxNotFoundError`, :class:`SandboxError` and InvalidValueError.
        """
        check_terminal(spec)
        place = self._place(devbox_id)
        self._terminals_opened += 1
        opening = await self._launch(
            place, f"terminal {self._terminals_opened}", lambda: self._open_terminal(place, spec)
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    def _open_terminal(self, place: SandboxPlace, spec: TerminalSpec) -> Terminal:
        record = self._running_record(place)
        return self._terminals.start(place, record, spec, self._host.layout.limiting_directories(place.group))

    async def signal_terminal(self, terminal: Terminal, number: int) -> bool:
        """Send a signal to what runs in the foreground there; whether there was anything."""
        group = terminal.foreground()
        return group is not None and await self._in_worker(lambda: terminal.send_signal(number, {group}))

    async def hang_up_terminal(self, terminal: Terminal) -> None:
        """End a terminal whose user is gone: SIGHUP, and two seconds later SIGKILL, to its command's group and to
        the one in the foreground. What was put in the background and bears SIGHUP goes on, as everywhere.
        """
        groups = {terminal.leader.pid} | {group for group in (terminal.foreground(),) if group is not None}
        await self._in_worker(lambda: terminal.send_signal(signal.SIGHUP, groups))
        terminal.close()
        await asyncio.sleep(_HANG_UP_S)
        await self._in_worker(lambda: terminal.send_signal(signal.SIGKILL, groups))
        await self._in_worker(terminal.end_leader)


def _close_unwanted(opening: asyncio.Future[Terminal]) -> None:
    """Nobody waits for it any more: hang up."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
