"""api → agents: terminals. The streams come over as descriptors, so api and agent must share a host.

Implements ``control.terminal_gateway.TerminalGateway``.
"""

import asyncio
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from outgate.client.packets import Packet, PacketSocket, close_all, wait_readable, wait_writable
from outgate.model.terminals import (
    AttachPty,
    ControlPty,
    OpenPty,
    PtyAction,
    PtyState,
    RefusalCode,
    Refused,
    RunProgram,
    SendSignal,
    TerminalAnswer,
    TerminalEnded,
    TerminalOpened,
    TerminalRequest,
    TerminalSize,
)

SOCKET_NAME: Final = "terminals.sock"
"""Beside the agent's own socket."""
_UNIX: Final = "unix:"
_ANSWER_S_MAX: Final = 70.0
"""An OCI runtime that hangs is given up after a minute."""
_READ_BYTES: Final = 32 * 1024
"""What one turn of the loop moves: one SSH packet, one WebSocket frame."""
_LAST_OUTPUT_S_MAX: Final = 2.0
"""A terminal is hung up right after its program's exit status was written; the kernel needs microseconds."""
_ANSWER: Final = msgspec.json.Decoder(TerminalAnswer)


class TerminalUnavailableError(OSError):
    """The agent cannot be reached, or makes no sense."""


class TerminalRefusal(Exception):  # noqa: N818 - an answer, not a failure
    """The agent said no; ``refused`` says why."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


class OutputStream(IntEnum):
    """Where output comes from. A pseudo terminal has one stream only."""

    STDOUT = 1
    STDERR = 2


class Terminal:
    """A program in a devbox, with its streams. Belongs to the event loop's thread; must be closed.

    ``ended`` is done with the exit status, or with None when the agent went away.
    """

    def __init__(self, control: PacketSocket, streams: tuple[int, ...], replay: bytes = b"") -> None:
        self._control = control
        self._open = set(streams)
        self._replay = replay
        self.is_pty = len(streams) == 1
        self._stdin = streams[0]
        self._outputs = (
            {OutputStream.STDOUT: streams[0]}
            if self.is_pty
            else {OutputStream.STDOUT: streams[1], OutputStream.STDERR: streams[2]}
        )
        for descriptor in streams:
            os.set_blocking(descriptor, False)
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._following = asyncio.ensure_future(self._follow())

    async def read(self, stream: OutputStream = OutputStream.STDOUT) -> bytes:
        """The next bytes of an output; empty at its end: everything that the program itself wrote was read then."""
        if self._replay and stream is OutputStream.STDOUT:
            replay, self._replay = self._replay, b""
            return replay
        descriptor = self._outputs.get(stream)
        while descriptor is not None and descriptor in self._open:
            try:
                return os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                if not await self._wait_for_output(descriptor):
                    break
            except OSError as error:
                if error.errno != errno.EIO:  # what a hung-up terminal answers
                    raise
                break
        return b""

    async def write(self, data: bytes) -> None:
        """Hand ``data`` to the program; waits while it does not read. What nobody can read any more is dropped."""
        rest = memoryview(data)
        while rest and self._stdin in self._open:
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await wait_writable(self._stdin)
            except OSError:
                return

    async def write_end(self) -> None:
        """End of input. To a pseudo terminal that is what Ctrl-D types (termios(3), VEOF)."""
        if self.is_pty:
            await self.write(b"\x04")
        else:
            self._close_stream(self._stdin)

    def resize(self, size: TerminalSize) -> None:
        """Give the terminal another size; nothing happens without a pseudo terminal, or after its end."""
        if self.is_pty and self._stdin in self._open:
            with suppress(OSError):
                fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))

    async def send_signal(self, number: int) -> None:
        """Send a signal to what runs in the foreground, if anything does."""
        with suppress(OSError):
            await self._control.send(msgspec.json.encode(SendSignal(number)))

    async def close(self) -> None:
        """Leave: a program that was started here is hung up, a PTY session goes on. May be called twice."""
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        self._control.close()
        for descriptor in tuple(self._open):
            self._close_stream(descriptor)

    async def _wait_for_output(self, descriptor: int) -> bool:
        """Whether there is more to read; False at the end."""
        if self.ended.done():
            if not self.is_pty:
                return False  # the pipe was empty after the program had ended: what is left open is not the program's
            try:
                async with asyncio.timeout(_LAST_OUTPUT_S_MAX):
                    await wait_readable(descriptor)
            except TimeoutError:
                return False
            return True
        readable = asyncio.ensure_future(wait_readable(descriptor))
        try:
            waits: set[asyncio.Future[Any]] = {readable, self.ended}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            readable.cancel()
            await asyncio.gather(readable, return_exceptions=True)
        return True

    async def _follow(self) -> None:
        status = None
        try:
            packet = await self._control.receive()
            close_all(packet.descriptors)
            answer = _ANSWER.decode(packet.data) if packet.data else None
            status = answer.exit_status if isinstance(answer, TerminalEnded) else None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            status = None
        finally:
            if not self.ended.done():
                self.ended.set_result(status)

    def _close_stream(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            os.close(descriptor)


class AgentTerminals:
    """Terminals of the agents on this host, whose token is ``token``.

    All raise :class:`TerminalRefusal`, and OSError when the agent cannot be reached.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    async def run(
        self, url: str, devbox_id: str, command: str | None, environment: Mapping[str, str], size: TerminalSize | None
    ) -> Terminal:
        """Start ``command`` (None: a login shell); with ``size`` on a pseudo terminal."""
        return await self._open(url, RunProgram(self._token, devbox_id, command, dict(environment), size))

    async def attach_pty(self, url: str, devbox_id: str, name: str, size: TerminalSize | None) -> Terminal:
        """Attach to a PTY session, made if it is not there."""
        return await self._open(url, AttachPty(self._token, devbox_id, name, size))

    async def open_pty(self, url: str, devbox_id: str, name: str, size: TerminalSize | None) -> PtyState:
        """A PTY session as it is, made if it is not there."""
        return await self._ask(url, OpenPty(self._token, devbox_id, name, size))

    async def control_pty(
        self,
        url: str,
        devbox_id: str,
        name: str,
        action: PtyAction,
        *,
        size: TerminalSize | None = None,
        signal: int = 0,
    ) -> PtyState:
        """Resize, signal or close a PTY session that is there."""
        return await self._ask(url, ControlPty(self._token, devbox_id, name, action, size, signal))

    async def _ask(self, url: str, request: TerminalRequest) -> PtyState:
        control = await _connect(url)
        try:
            answer, packet = await _exchange(control, request)
        finally:
            control.close()
        close_all(packet.descriptors)
        if not isinstance(answer, PtyState):
            raise TerminalUnavailableError(f"the agent at {url} gave another answer than was asked for")
        return answer

    async def _open(self, url: str, request: TerminalRequest) -> Terminal:
        control = await _connect(url)
        streams: tuple[int, ...] = ()
        try:
            answer, packet = await _exchange(control, request)
            streams = packet.descriptors
            return await _take_over(control, answer, streams)
        except BaseException:
            close_all(streams)
            control.close()
            raise


async def _take_over(control: PacketSocket, answer: TerminalAnswer, streams: tuple[int, ...]) -> Terminal:
    if not isinstance(answer, TerminalOpened) or len(streams) not in (1, 3):
        raise TerminalUnavailableError("the agent sent no streams")
    replay = (await control.receive()).data if answer.has_replay else b""
    return Terminal(control, streams, replay)


async def _connect(url: str) -> PacketSocket:
    if not url.startswith(_UNIX):
        raise TerminalUnavailableError(f"the agent at {url} is on another host; terminals need it on this one")
    place = Path(url.removeprefix(_UNIX)).with_name(SOCKET_NAME)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A unix socket connects at once or not at all (unix(7)): EAGAIN means that its queue is full.
        connected.setblocking(False)
        connected.connect(str(place))
        return PacketSocket(connected)
    except OSError as error:
        connected.close()
        raise TerminalUnavailableError(f"the agent at {url} does not answer: {error.strerror}") from error


async def _exchange(control: PacketSocket, request: TerminalRequest) -> tuple[TerminalAnswer, Packet]:
    async with asyncio.timeout(_ANSWER_S_MAX):
        await control.send(msgspec.json.encode(request))
        packet = await control.receive()
    try:
        answer: TerminalAnswer = _ANSWER.decode(packet.data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        close_all(packet.descriptors)
        raise TerminalUnavailableError("the agent sent what cannot be read") from error
    if isinstance(answer, Refused):
        close_all(packet.descriptors)
        if answer.code is RefusalCode.UNAUTHORIZED:
            raise TerminalUnavailableError(answer.message)
        raise TerminalRefusal(answer)
    return answer, packet
