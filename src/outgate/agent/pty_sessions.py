"""PTY sessions: terminals with a name, which outlive the connections that use them.

While a client is attached it alone reads the terminal. While nobody is, the agent reads it, so that the program does
not stand still, and keeps the last of it for whoever attaches next.
"""

import asyncio
import fcntl
import os
import struct
import termios
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from outgate.agent.running_terminals import RunningTerminal, TerminalRefusedError, TerminalRuntime, start_terminal
from outgate.model.terminals import (
    SESSION_IDLE_S_MAX,
    SIZE_DEFAULT,
    SIZE_MAX,
    ControlPty,
    PtyAction,
    PtyState,
    RefusalCode,
    TerminalSize,
)
from outgate.runtime.base import TerminalSpec

SESSIONS_PER_DEVBOX_MAX: Final = 16
SESSIONS_MAX: Final = 1024
"""Each keeps two descriptors and up to MISSED_BYTES_MAX."""
MISSED_BYTES_MAX: Final = 64 * 1024
"""A few screens full; one packet."""
_READ_BYTES: Final = 16 * 1024
_ENVIRONMENT: Final = {"TERM": "xterm-256color"}
"""What the clients of a PTY session emulate; there is no field to say otherwise."""


SessionKey = tuple[str, str]
"""The devbox's id and the session's name."""


class PtySession:
    """One session. ``is_attached``: a client reads its terminal, not this process."""

    def __init__(self, key: SessionKey, running: RunningTerminal, size: TerminalSize) -> None:
        self.key = key
        self.running = running
        self.size = size
        self.is_attached = False
        self.expiry: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._missed: deque[bytes] = deque()
        self._missed_bytes = 0
        self._master = running.terminal.streams[0]
        self._loop.add_reader(self._master, self._read_missed)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Leave the terminal to a client for the length of the block."""
        self._loop.remove_reader(self._master)
        self.is_attached = True
        try:
            yield
        finally:
            self.is_attached = False
            if not self.running.ended.done():
                self._loop.add_reader(self._master, self._read_missed)

    def take_missed(self) -> bytes:
        """What it said while nobody was attached: the last MISSED_BYTES_MAX of it, once."""
        missed = b"".join(self._missed)
        self._missed.clear()
        self._missed_bytes = 0
        return missed[-MISSED_BYTES_MAX:]

    def resize(self, size: TerminalSize) -> None:
        """Give the terminal another size; the kernel tells its foreground. Raises OSError."""
        # tty_ioctl(4): struct winsize has rows, columns, and two fields that nobody uses.
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))
        self.size = size

    async def end(self) -> None:
        """Hang up and let go of everything."""
        self._loop.remove_reader(self._master)
        if self.expiry is not None:
            self.expiry.cancel()
        await self.running.end()

    def _read_missed(self) -> None:
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:  # hung up: the exit status follows
            self._loop.remove_reader(self._master)
            return
        self._missed.append(data)
        self._missed_bytes += len(data)
        while self._missed_bytes - len(self._missed[0]) >= MISSED_BYTES_MAX:
            self._missed_bytes -= len(self._missed.popleft())


class PtySessions:
    """All PTY sessions of a host. Belongs to the event loop's thread."""

    def __init__(self, runtime: TerminalRuntime, *, idle_s_max: float = SESSION_IDLE_S_MAX) -> None:
        self._runtime = runtime
        self._idle_s_max = idle_s_max
        self._sessions: dict[SessionKey, PtySession] = {}
        self._starting: dict[SessionKey, asyncio.Future[PtySession]] = {}
        self._ending: set[asyncio.Future[None]] = set()
        self._log = structlog.get_logger("pty_sessions")

    async def ensure(self, devbox_id: str, name: str, size: TerminalSize | None) -> PtyState:
        """The session, made if it is not there; ``size`` is given to it. Raises TerminalRefusedError."""
        is_created = (devbox_id, name) not in self._sessions
        session = await self.open(devbox_id, name, size)
        return _state(session, is_created=is_created)

    async def open(self, devbox_id: str, name: str, size: TerminalSize | None) -> PtySession:
        """The same, to be attached to."""
        session = await self._find_or_start((devbox_id, name), size)
        if size is not None and size != session.size and not session.is_attached:
            _resize(session, size)
        return session

    @contextmanager
    def attach(self, session: PtySession) -> Iterator[None]:
        """Be the session's one client for the length of the block. Raises TerminalRefusedError if there is one."""
        if session.is_attached:
            message = "Another client is attached to this PTY session; let it leave, or choose another name."
            raise TerminalRefusedError(RefusalCode.ATTACHED, message)
        if session.expiry is not None:
            session.expiry.cancel()
        try:
            with session.attached():
                yield
        finally:
            self._start_expiry(session)

    async def control(self, request: ControlPty) -> PtyState:
        """Resize, signal or close the session. Raises TerminalRefusedError."""
        key = (request.devbox_id, request.name)
        session = self._sessions.get(key)
        if session is None:
            message = f"There is no PTY session {request.name!r}; connect to it first."
            raise TerminalRefusedError(RefusalCode.NOT_FOUND, message)
        match request.action:
            case PtyAction.RESIZE if request.size is not None:
                _resize(session, request.size)
            case PtyAction.SIGNAL:
                if not await session.running.send_signal(request.signal):
                    message = "Nothing runs in this PTY session's foreground to receive a signal."
                    raise TerminalRefusedError(RefusalCode.NO_FOREGROUND, message)
            case PtyAction.CLOSE:
                self._drop(session)
            case _:
                raise TerminalRefusedError(RefusalCode.INVALID, "A resize needs a size.")
        return _state(session)

    async def aclose(self) -> None:
        """End all sessions."""
        for session in list(self._sessions.values()):
            self._drop(session)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _find_or_start(self, key: SessionKey, size: TerminalSize | None) -> PtySession:
        found = self._sessions.get(key)
        if found is not None:
            return found
        if key not in self._starting:
            self._check_room(key[0])
            starting = asyncio.ensure_future(self._start(key, size or SIZE_DEFAULT))
            self._starting[key] = starting
            starting.add_done_callback(lambda _: self._starting.pop(key))
        # Whoever asks meanwhile shares the start; who leaves does not break it off.
        return await asyncio.shield(self._starting[key])

    def _check_room(self, devbox_id: str) -> None:
        known = [*self._sessions, *self._starting]
        if sum(1 for owner, _ in known if owner == devbox_id) >= SESSIONS_PER_DEVBOX_MAX:
            message = f"The devbox already has {SESSIONS_PER_DEVBOX_MAX} PTY sessions; close one first."
            raise TerminalRefusedError(RefusalCode.TOO_MANY, message)
        if len(known) >= SESSIONS_MAX:
            raise TerminalRefusedError(RefusalCode.TOO_MANY, "The host has no room for another PTY session just now.")

    async def _start(self, key: SessionKey, size: TerminalSize) -> PtySession:
        running = await start_terminal(self._runtime, key[0], TerminalSpec(None, _ENVIRONMENT, size))
        session = self._sessions[key] = PtySession(key, running, size)
        running.ended.add_done_callback(lambda _: self._drop(session))
        self._start_expiry(session)
        return session

    def _start_expiry(self, session: PtySession) -> None:
        if self._sessions.get(session.key) is session:
            loop = asyncio.get_running_loop()
            session.expiry = loop.call_later(self._idle_s_max, self._drop, session)

    def _drop(self, session: PtySession) -> None:
        if self._sessions.get(session.key) is not session:
            return
        del self._sessions[session.key]
        ending = asyncio.ensure_future(session.end())
        self._ending.add(ending)
        ending.add_done_callback(self._note_end)

    def _note_end(self, ending: asyncio.Future[None]) -> None:
        self._ending.discard(ending)
        if not ending.cancelled() and ending.exception() is not None:
            self._log.warning("terminal_not_ended", error=str(ending.exception()))


def _state(session: PtySession, *, is_created: bool = False) -> PtyState:
    return PtyState(session.size, is_created=is_created, is_attached=session.is_attached)


def _resize(session: PtySession, size: TerminalSize) -> None:
    if not (1 <= size.cols <= SIZE_MAX and 1 <= size.rows <= SIZE_MAX):
        raise TerminalRefusedError(RefusalCode.INVALID, f"A terminal has 1 to {SIZE_MAX} columns and rows.")
    try:
        session.resize(size)
    except OSError as error:
        raise TerminalRefusedError(RefusalCode.FAILED, f"The terminal took no size: {error.strerror}.") from None
