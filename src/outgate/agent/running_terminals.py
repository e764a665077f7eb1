"""One terminal while it runs: its exit status, signals, and its end, whoever brings it about."""

import asyncio
import os
from typing import Final, Protocol

from outgate.errors import InvalidValueError
from outgate.model.terminals import RefusalCode, Refused
from outgate.runtime.base import SandboxError, SandboxNotFoundError, TerminalSpec
from outgate.runtime.terminals import Terminal

_EXIT_STATUS_HUNG_UP: Final = 129
"""128 + SIGHUP."""


class TerminalRefusedError(Exception):
    """What was asked for is not done; ``refusal`` says why."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.refusal = Refused(code, message)


class TerminalRuntime(Protocol):
    """The part of a runtime that terminals need."""

    async def open_terminal(self, devbox_id: str, spec: TerminalSpec) -> Terminal:
        """Start a program with its streams in this process. Raises SandboxError and InvalidValueError."""
        ...

    async def signal_terminal(self, terminal: Terminal, number: int) -> bool:
        """Send a signal to what runs in the foreground there; whether there was anything."""
        ...

    async def hang_up_terminal(self, terminal: Terminal) -> None:
        """SIGHUP, then SIGKILL; closes the terminal."""
        ...


class RunningTerminal:
    """A started terminal. ``ended`` is done with the exit status. Call :meth:`end` exactly once, at last."""

    def __init__(self, runtime: TerminalRuntime, terminal: Terminal) -> None:
        self.terminal = terminal
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(terminal.status, self._read_status)

    async def send_signal(self, number: int) -> bool:
        """Signal the foreground; whether there was anything."""
        return not self.ended.done() and await self._runtime.signal_terminal(self.terminal, number)

    async def end(self) -> None:
        """Hang up, if the program has not ended by itself; nothing is open afterwards."""
        self._loop.remove_reader(self.terminal.status)
        if self.ended.done():
            # What the program left in the background lives on, as after any login.
            self.terminal.close()
            return
        self.ended.set_result(_EXIT_STATUS_HUNG_UP)
        # Not to be broken off in between: somebody has to send the last signal.
        await asyncio.shield(self._runtime.hang_up_terminal(self.terminal))

    def _read_status(self) -> None:
        self._loop.remove_reader(self.terminal.status)
        if not self.ended.done():
            self.ended.set_result(self.terminal.read_status())


async def start_terminal(runtime: TerminalRuntime, devbox_id: str, spec: TerminalSpec) -> RunningTerminal:
    """A started terminal, its descriptors non-blocking. Raises TerminalRefusedError."""
    try:
        terminal = await runtime.open_terminal(devbox_id, spec)
    except SandboxNotFoundError as error:
        raise TerminalRefusedError(RefusalCode.NOT_RUNNING, error.message) from None
    except InvalidValueError as error:
        raise TerminalRefusedError(RefusalCode.INVALID, error.message) from None
    except SandboxError as error:
        raise TerminalRefusedError(RefusalCode.FAILED, error.message) from None
    for descriptor in terminal.streams:
        os.set_blocking(descriptor, False)
    return RunningTerminal(runtime, terminal)
