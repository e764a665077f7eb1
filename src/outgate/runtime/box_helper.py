"""A program of Outgate's own that runs in a sandbox, with pipes to this process: for what must happen *there*."""

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from outgate.runtime.bundle import STATUS_DESCRIPTOR, Document
from outgate.runtime.disk import read_pid
from outgate.runtime.engine import Engine
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.execution_stdin import write_all
from outgate.runtime.proc import ProcessRef, find_process, open_if_alive
from outgate.runtime.process_start import ProcessNotes, start_process

PIECE_BYTES_MAX: Final = 64 * 1024
"""What a pipe holds, and what is in memory of a transfer at once."""
_WORD_BYTES_MAX: Final = 64
_COMPLAINT_BYTES_MAX: Final = 4096
_UNDO_S: Final = 2.0
"""What a program is given to undo what it did not finish: it removes one file."""


class HelperGoneError(Exception):
    """The program takes no more input."""


@dataclass(frozen=True, slots=True)
class HelperStart:
    """What is to run. ``owner``: the host's number of its user, whose the pipes will be."""

    engine: Engine
    place: SandboxPlace
    document: Document
    owner: int
    directory: Path


@dataclass(frozen=True, slots=True)
class StartedHelper:
    """This process's ends of the pipes, all non-blocking, and a pidfd (None: it has ended already)."""

    process: ProcessRef | None
    alive: int | None
    words: int
    data: int
    complaints: int

    def kill_and_close(self) -> None:
        """End the program without more ado."""
        self.signal_group(signal.SIGKILL)
        self.close()

    def signal_group(self, number: int) -> None:
        """Signal the program and its children; nothing happens when it has ended."""
        if self.process is not None and self.alive is not None and find_process(self.process.pid) == self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.words, self.data, self.complaints, self.alive):
            if descriptor is not None:
                os.close(descriptor)


def start_helper(start: HelperStart, *, is_writer: bool) -> StartedHelper:
    """Start the program; it reads ``data`` if ``is_writer``, else it writes there. Blocks.

    Raises :class:`SandboxNotFoundError` and :class:`SandboxError`.
    """
    start.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = Path(tempfile.mkdtemp(dir=start.directory))
    notes = ProcessNotes(files / "process.json", files / "pid", files / "log")
    kept: list[int] = []
    try:
        with ExitStack() as ends:

            def pipe(mine: int) -> tuple[int, int]:
                both = os.pipe2(os.O_CLOEXEC)
                kept.append(both[mine])
                ends.callback(os.close, both[1 - mine])
                os.set_blocking(both[mine], False)
                os.fchown(both[1 - mine], start.owner, start.owner)
                return both[mine], both[1 - mine]

            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            ends.callback(os.close, nothing)
            words, words_far = pipe(0)
            complaints, complaints_far = pipe(0)
            data, data_far = pipe(1 if is_writer else 0)
            streams = {0: data_far, 1: nothing} if is_writer else {0: nothing, 1: data_far}
            near = {**streams, 2: complaints_far, STATUS_DESCRIPTOR: words_far}
            start_process(start.engine, start.place, start.document, notes, near)
        pid = read_pid(notes.pid_file)
        process = None if pid is None else find_process(pid)
        alive = None if process is None else open_if_alive(process, start.place.group)
    except BaseException:
        for descriptor in kept:
            os.close(descriptor)
        raise
    finally:
        shutil.rmtree(files, ignore_errors=True)
    return StartedHelper(process, alive, words, data, complaints)


@dataclass(slots=True)
class BoxHelper:
    """A started program, in the event loop. :meth:`aclose` must be called."""

    started: StartedHelper
    _ended: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _said: bytes = b""
    _has_input: bool = True

    def __post_init__(self) -> None:
        if self.started.alive is None:
            self._note_end()
        else:
            asyncio.get_running_loop().add_reader(self.started.alive, self._note_end)

    async def read_word(self, timeout_s: float) -> str:
        """The next line of the status descriptor; empty when the program ended without one. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while b"\n" not in self._said and len(self._said) < _WORD_BYTES_MAX:
                more = await self._read(self.started.words, _WORD_BYTES_MAX)
                if not more:
                    break
                self._said += more
        word, end, self._said = self._said.partition(b"\n")
        return word.decode("ascii", "replace") if end else ""

    async def read_piece(self, timeout_s: float) -> bytes:
        """What the program wrote, empty at the end. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            return await self._read(self.started.data, PIECE_BYTES_MAX)

    async def write_piece(self, piece: bytes, timeout_s: float) -> None:
        """Hand ``piece`` to the program. Raises TimeoutError, and :class:`HelperGoneError` when nobody reads."""
        try:
            async with asyncio.timeout(timeout_s):
                await write_all(self.started.data, piece)
        except BrokenPipeError:
            raise HelperGoneError from None

    def end_input(self) -> None:
        """There is no more to read for the program."""
        if self._has_input:
            self._has_input = False
            # The number stays taken until the end, so that it is closed once and only once.
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, self.started.data, inheritable=False)
            os.close(nothing)

    def read_complaint(self) -> str:
        """What it wrote to standard error until now."""
        try:
            return os.read(self.started.complaints, _COMPLAINT_BYTES_MAX).decode("utf-8", "replace")
        except BlockingIOError:
            return ""

    async def aclose(self) -> None:
        """End the program; one that has not finished may undo what it did, for a moment."""
        try:
            if not self._ended.done():
                self.started.signal_group(signal.SIGTERM)
                await asyncio.wait((self._ended,), timeout=_UNDO_S)
        finally:
            self._note_end()
            self.started.kill_and_close()

    async def _read(self, descriptor: int, length: int) -> bytes:
        """What can be read, empty at the end of the pipe. Who else holds its other end does not prolong it."""
        while True:
            has_ended = self._ended.done()
            try:
                return os.read(descriptor, length)
            except BlockingIOError:
                if has_ended:
                    return b""
            await self._await_readable(descriptor)

    async def _await_readable(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake(_: object = None) -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(descriptor, wake)
        self._ended.add_done_callback(wake)
        try:
            await ready
        finally:
            loop.remove_reader(descriptor)
            self._ended.remove_done_callback(wake)

    def _note_end(self) -> None:
        if self.started.alive is not None:
            asyncio.get_running_loop().remove_reader(self.started.alive)
        if not self._ended.done():
            self._ended.set_result(None)
