"""Terminals in devboxes for the api, over a unix socket of packets.

The agent starts programs and hands their streams over; it reads and writes none of their bytes but what a PTY
session says while nobody is attached, which it keeps unread as it came. See :mod:`outgate.model.terminals`.
"""

import asyncio
import hashlib
import hmac
import socket
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from outgate.agent.pty_sessions import PtySessions
from outgate.agent.running_terminals import RunningTerminal, TerminalRefusedError, TerminalRuntime, start_terminal
from outgate.client.packets import Packet, PacketSocket, close_all
from outgate.client.peers import peer_uid
from outgate.model.terminals import (
    AttachPty,
    ControlPty,
    OpenPty,
    RefusalCode,
    RunProgram,
    SendSignal,
    TerminalAnswer,
    TerminalEnded,
    TerminalOpened,
    TerminalRequest,
)
from outgate.runtime.base import TerminalSpec

CONNECTIONS_MAX: Final = 1024
"""Each holds up to five descriptors here; the agent's other needs leave that much of the usual 16,384."""
PROGRAMS_PER_DEVBOX_MAX: Final = 64
"""A team on one box; PTY sessions are counted by themselves."""
_ACCEPT_PAUSE_S: Final = 0.1
_ASK_S_MAX: Final = 10.0
"""Who connects says what is wanted at once."""

_REQUEST: Final = msgspec.json.Decoder(TerminalRequest)
_SIGNAL: Final = msgspec.json.Decoder(SendSignal)


class Terminals:
    """The agent's terminals, for processes of ``uids`` that know ``token``. Belongs to the event loop's thread."""

    def __init__(self, runtime: TerminalRuntime, token: str, uids: Collection[int]) -> None:
        self._runtime = runtime
        self._uids = frozenset(uids)
        self._digest = hashlib.sha256(token.encode()).digest()
        self._sessions = PtySessions(runtime)
        self._programs: Counter[str] = Counter()
        self._connections: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("terminals")

    async def serve(self, listening: socket.socket) -> None:
        """Answer whoever connects to ``listening`` (bound, SOCK_SEQPACKET) until cancelled; all terminals end then."""
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connected, _ = await loop.sock_accept(listening)
                except OSError as error:
                    # Out of descriptors, say: those who wait are served when there are some again.
                    self._log.warning("accept_failed", error=str(error))
                    await asyncio.sleep(_ACCEPT_PAUSE_S)
                    continue
                if peer_uid(connected) not in self._uids or len(self._connections) >= CONNECTIONS_MAX:
                    connected.close()
                    continue
                task = asyncio.create_task(self._answer(PacketSocket(connected)))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
        finally:
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._sessions.aclose()

    async def _answer(self, peer: PacketSocket) -> None:
        try:
            request = await self._receive_request(peer)
            match request:
                case RunProgram():
                    await self._run_program(peer, request)
                case AttachPty():
                    await self._attach(peer, request)
                case OpenPty():
                    await _send(peer, await self._sessions.ensure(request.devbox_id, request.name, request.size))
                case ControlPty():
                    await _send(peer, await self._sessions.control(request))
        except TerminalRefusedError as refused:
            with suppress(OSError):
                await _send(peer, refused.refusal)
        except (OSError, TimeoutError) as error:
            self._log.debug("peer_gone", error=str(error))
        finally:
            peer.close()

    async def _receive_request(self, peer: PacketSocket) -> TerminalRequest:
        """What is asked for. Raises TerminalRefusedError, and OSError when it does not come."""
        async with asyncio.timeout(_ASK_S_MAX):
            packet = await peer.receive()
        close_all(packet.descriptors)
        try:
            request: TerminalRequest = _REQUEST.decode(packet.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TerminalRefusedError(RefusalCode.INVALID, f"This is no request: {error}.") from None
        if not hmac.compare_digest(hashlib.sha256(request.token.encode()).digest(), self._digest):
            raise TerminalRefusedError(RefusalCode.UNAUTHORIZED, "The host token is missing or wrong.")
        return request

    async def _run_program(self, peer: PacketSocket, request: RunProgram) -> None:
        if self._programs[request.devbox_id] >= PROGRAMS_PER_DEVBOX_MAX:
            message = f"The devbox already has {PROGRAMS_PER_DEVBOX_MAX} programs with open streams; end one first."
            raise TerminalRefusedError(RefusalCode.TOO_MANY, message)
        self._programs[request.devbox_id] += 1
        try:
            spec = TerminalSpec(request.command, request.environment, request.size)
            running = await start_terminal(self._runtime, request.devbox_id, spec)
            try:
                await _send_streams(peer, running, replay=b"")
                running.terminal.release_pipes()
                await self._follow(peer, running)
            finally:
                await running.end()
        finally:
            self._programs[request.devbox_id] -= 1
            if not self._programs[request.devbox_id]:
                del self._programs[request.devbox_id]

    async def _attach(self, peer: PacketSocket, request: AttachPty) -> None:
        session = await self._sessions.open(request.devbox_id, request.name, request.size)
        with self._sessions.attach(session):
            await _send_streams(peer, session.running, replay=session.take_missed())
            await self._follow(peer, session.running)

    async def _follow(self, peer: PacketSocket, running: RunningTerminal) -> None:
        """Pass signals on until the peer leaves, or tell it the exit status."""
        receiving = asyncio.ensure_future(self._pass_signals(peer, running))
        try:
            waits: set[asyncio.Future[Any]] = {receiving, running.ended}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if running.ended.done():
                with suppress(OSError):
                    await _send(peer, TerminalEnded(running.ended.result()))
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _pass_signals(self, peer: PacketSocket, running: RunningTerminal) -> None:
        while (packet := await _receive_or_end(peer)).data:
            close_all(packet.descriptors)
            try:
                wanted = _SIGNAL.decode(packet.data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return
            await running.send_signal(wanted.signal)


async def _receive_or_end(peer: PacketSocket) -> Packet:
    try:
        return await peer.receive()
    except OSError:
        return Packet(b"")


async def _send(peer: PacketSocket, answer: TerminalAnswer) -> None:
    await peer.send(msgspec.json.encode(answer))


async def _send_streams(peer: PacketSocket, running: RunningTerminal, *, replay: bytes) -> None:
    opened = TerminalOpened(has_replay=bool(replay))
    await peer.send(msgspec.json.encode(opened), running.terminal.streams)
    if replay:
        await peer.send(replay)
