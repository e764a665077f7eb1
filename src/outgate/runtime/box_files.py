"""Reading and writing files in a sandbox, without the host ever following a name in it.

A small shell program runs *in* the sandbox, as its user, confined like any of its commands, and is connected to
this process by pipes alone. So whatever lies there - links, ``..``, /proc's magic links, FIFOs, devices, mounts, a
``cat`` that was replaced - can show or hang nothing that the sandbox's own user could not: the host opens no name
of the sandbox. It works the same where the host cannot see the file system at all (gVisor). What the program says
is not believed either: words are looked up, waits are bounded, complaints are cut and cleaned.
"""

import asyncio
import posixpath
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from outgate.model.executions import FileProblem
from outgate.runtime.base import BoxFileError, SandboxUser
from outgate.runtime.box_file_scripts import (
    PROBLEMS,
    READ_SCRIPT,
    WRITE_SCRIPT,
    Word,
    describe_problem,
    find_reason,
    judge_reason,
)
from outgate.runtime.box_helper import BoxHelper, HelperGoneError, HelperStart, StartedHelper, start_helper
from outgate.runtime.bundle import HostFacts, render_helper
from outgate.runtime.disk import SandboxRecord
from outgate.runtime.engine import Engine
from outgate.runtime.execution_files import SandboxPlace

STALL_S: Final = 60.0
"""A file that gives or takes nothing for so long never will; a disk answers within seconds."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A file: in which sandbox, whose rights count, and where, relative to that user's home unless absolute."""

    place: SandboxPlace
    record: SandboxRecord
    path: str
    user: SandboxUser | None = None


class Launch(Protocol):
    """Runs what starts a process in a sandbox, under a name of its own, in a thread."""

    async def __call__(
        self, place: SandboxPlace, name: str, work: Callable[[], StartedHelper], /
    ) -> asyncio.Future[StartedHelper]:
        """It is under way."""


@dataclass(frozen=True, slots=True)
class BoxFiles:
    """Transfers files of this host's sandboxes. ``directory``: for the short-lived files of a start; root's alone."""

    engine: Engine
    facts: HostFacts
    directory: Path
    launch: Launch
    stall_s: float = STALL_S

    @asynccontextmanager
    async def read(self, file: FilePlace) -> AsyncIterator[AsyncIterator[bytes]]:
        """See :meth:`outgate.runtime.base.Runtime.read_file`."""
        helper = await self._start(file, READ_SCRIPT, is_writer=False)
        try:
            await self._expect(helper, Word.READY, file)
            pieces = self._pieces(helper, file)
            try:
                yield pieces
            finally:
                await pieces.aclose()
        finally:
            await helper.aclose()

    async def write(self, file: FilePlace, data: AsyncIterator[bytes]) -> None:
        """See :meth:`outgate.runtime.base.Runtime.write_file`."""
        helper = await self._start(file, WRITE_SCRIPT, is_writer=True)
        try:
            await self._expect(helper, Word.READY, file)
            try:
                async for piece in data:
                    await self._write_piece(helper, piece, file)
            except HelperGoneError:
                pass  # it says why
            helper.end_input()
            await self._expect(helper, Word.DONE, file)
        finally:
            await helper.aclose()

    async def _start(self, file: FilePlace, script: str, *, is_writer: bool) -> BoxHelper:
        user = file.user or file.record.spec.user
        path = posixpath.join(user.home, file.path)
        document = render_helper(file.record.spec, user, script, path, facts=self.facts)
        start = HelperStart(self.engine, file.place, document, file.record.ids.first_id + user.uid, self.directory)
        name = f"file-{secrets.token_hex(8)}"
        starting = await self.launch(file.place, name, lambda: start_helper(start, is_writer=is_writer))
        try:
            return BoxHelper(await asyncio.shield(starting))
        except asyncio.CancelledError:
            # A thread cannot be cancelled: what it starts is ended as soon as it is there.
            starting.add_done_callback(_close_unwanted)
            raise

    async def _expect(self, helper: BoxHelper, wanted: Word, file: FilePlace) -> None:
        try:
            said = await helper.read_word(self.stall_s)
        except TimeoutError:
            raise _file_error(FileProblem.STALLED, file) from None
        if said == wanted:
            return
        problem = next((problem for word, problem in PROBLEMS.items() if word == said), None)
        if problem is not None:
            raise _file_error(problem, file)
        reason = find_reason(helper.read_complaint())
        raise _file_error(judge_reason(reason), file, reason)

    async def _pieces(self, helper: BoxHelper, file: FilePlace) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                piece = await helper.read_piece(self.stall_s)
            except TimeoutError:
                raise _file_error(FileProblem.STALLED, file) from None
            if not piece:
                break
            yield piece
        await self._expect(helper, Word.DONE, file)

    async def _write_piece(self, helper: BoxHelper, piece: bytes, file: FilePlace) -> None:
        try:
            await helper.write_piece(piece, self.stall_s)
        except TimeoutError:
            raise _file_error(FileProblem.STALLED, file) from None


def _file_error(problem: FileProblem, file: FilePlace, reason: str = "") -> BoxFileError:
    return BoxFileError(problem, describe_problem(problem, file.path, reason))


def _close_unwanted(starting: asyncio.Future[StartedHelper]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().kill_and_close()
