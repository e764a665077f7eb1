"""One session channel of an SSH connection: a program in the devbox."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import asyncssh

from outgate.api.sftp_program import SFTP_COMMAND
from outgate.api.ssh_flow import ChannelFlow, ChannelNeeds
from outgate.client.terminals import OutputStream, Terminal, TerminalRefusal
from outgate.control.pty import parse_signal
from outgate.control.terminal_gateway import TerminalGateway
from outgate.errors import InvalidValueError
from outgate.model.terminals import COLS_DEFAULT, ROWS_DEFAULT, SIZE_MAX, TerminalSize

_EXIT_FAILED: Final = 255
"""What ssh itself exits with when something other than the program failed."""
_SIGNALS_WAITING_MAX: Final = 16
_VARIABLES_MAX: Final = 100
_VARIABLES_BYTES_MAX: Final = 16 * 1024
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)


class SshProgram(ChannelFlow, asyncssh.SSHServerSession[bytes]):
    """See asyncssh.SSHServerSession for when each method is called."""

    def __init__(self, needs: ChannelNeeds, terminals: TerminalGateway) -> None:
        super().__init__(needs)
        self._terminals = terminals
        self._command: str | None = None
        self._term: str | None = None
        self._size: TerminalSize | None = None
        self._terminal: Terminal | None = None
        self._signals: asyncio.Queue[int] = asyncio.Queue(_SIGNALS_WAITING_MAX)

    def pty_requested(
        self, term_type: str, term_size: tuple[int, int, int, int], term_modes: Mapping[int, int]
    ) -> bool:
        """The program shall have a pseudo terminal. Its modes are those of a new one."""
        del term_modes
        self._term = term_type
        self._size = _size(term_size[0], term_size[1])
        return True

    def shell_requested(self) -> bool:
        """A login shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """A command."""
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """Of all subsystems there is SFTP."""
        self._command = SFTP_COMMAND
        self._size = None
        return subsystem == "sftp"

    def session_started(self) -> None:
        """The client waits."""
        self.begin(self._run())

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """The client's window changed."""
        del pixwidth, pixheight
        if self._size is not None:
            self._size = _size(width, height)
            if self._terminal is not None:
                self._terminal.resize(self._size)

    def signal_received(self, signal: str) -> None:
        """A signal for the program, by its name (RFC 4254 §6.9). More than can wait are dropped."""
        try:
            self._signals.put_nowait(parse_signal(signal))
        except (InvalidValueError, asyncio.QueueFull):
            return

    async def _run(self) -> None:
        place = self.needs.place
        try:
            environment = _environment(self.channel.get_environment_bytes(), self._term)
            terminal = await self._terminals.run(place.url, place.devbox_id, self._command, environment, self._size)
        except TerminalRefusal as refusal:
            self._fail(refusal.refused.message)
            return
        except (OSError, TimeoutError):
            self._fail(f"The host of devbox {place.devbox_id} does not answer; try again in a moment.")
            return
        self._terminal = terminal
        helpers = [asyncio.ensure_future(work) for work in (self._feed(terminal), self._pass_signals(terminal))]
        try:
            await self._finish(terminal)
        except OSError:
            return  # the client is gone
        finally:
            self.begin_cleanup()
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await terminal.close()

    async def _finish(self, terminal: Terminal) -> None:
        """Carry the output until its end, and then the exit status."""
        await asyncio.gather(self._drain(terminal, OutputStream.STDOUT), self._drain(terminal, OutputStream.STDERR))
        status = await terminal.ended
        self.channel.exit(_EXIT_FAILED if status is None else status)

    async def _drain(self, terminal: Terminal, stream: OutputStream) -> None:
        while data := await terminal.read(stream):
            self.note_use()
            await self.send(data, is_stderr=stream is OutputStream.STDERR)

    async def _feed(self, terminal: Terminal) -> None:
        while data := await self.receive():
            self.note_use()
            await terminal.write(data)
        await terminal.write_end()

    async def _pass_signals(self, terminal: Terminal) -> None:
        while True:
            await terminal.send_signal(await self._signals.get())

    def _fail(self, message: str) -> None:
        if not self.channel.is_closing():
            self.channel.write(message.encode() + b"\r\n", asyncssh.EXTENDED_DATA_STDERR)
            self.channel.exit(_EXIT_FAILED)


def _size(cols: int, rows: int) -> TerminalSize:
    """Zero means that the client does not know (RFC 4254 §6.2)."""
    return TerminalSize(min(cols, SIZE_MAX) or COLS_DEFAULT, min(rows, SIZE_MAX) or ROWS_DEFAULT)


def _environment(given: Mapping[bytes, bytes], term: str | None) -> dict[str, str]:
    """What of the client's environment goes along: plain names, within bounds."""
    found: dict[str, str] = {}
    room = _VARIABLES_BYTES_MAX
    pairs: list[tuple[Any, Any]] = [(b"TERM", term.encode()), *given.items()] if term else [*given.items()]
    for raw_name, raw_value in pairs[:_VARIABLES_MAX]:
        name, value = raw_name.decode("utf-8", "replace"), raw_value.decode("utf-8", "replace")
        room -= len(raw_name) + len(raw_value)
        if room >= 0 and _VARIABLE.match(name) and "\0" not in value:
            found[name] = value
    return found
