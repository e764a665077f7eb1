"""Executions after their start: state, waiting, output, input, and their end.

What an execution *is* can be read from its directory and from the kernel at any time; what is kept in
memory here is only who waits for its end: one pidfd per execution that somebody waits for.
"""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from outgate.runtime.base import (
    EXIT_STATUS_KILLED,
    ExecOutput,
    ExecState,
    ExecStatus,
    ExecutionNotFoundError,
    KillScope,
    OutputStream,
    SandboxError,
)
from outgate.runtime.execution_files import ExecutionFiles, SandboxPlace, execution_files
from outgate.runtime.output import read_last_lines
from outgate.runtime.proc import children, find_process, open_if_alive
from outgate.runtime.pumps import Pumps, is_drained, open_stdin

_DRAIN_STEP_S: Final = 0.002
_DRAIN_STEPS_MAX: Final = 500
"""A second: a pipe holds 64 KiB, which cat(1) moves in less than a millisecond. A background process that goes
on writing keeps it from ever being empty, and must not hold up the state of a command that has ended."""


class Executions:
    """The executions of all sandboxes of one host."""

    def __init__(self) -> None:
        self._ends: dict[Path, tuple[asyncio.Future[None], int]] = {}

    async def wait(self, place: SandboxPlace, execution_id: str, timeout_s: float) -> ExecState:
        """See :meth:`outgate.runtime.base.Runtime.exec_wait`."""
        files = _find(place, execution_id)
        alive = _open_alive(place, files)
        if alive is not None:
            end = self._watch(files.root, alive)
            _, pending = await asyncio.wait((end,), timeout=timeout_s)
            if pending:
                return ExecState(execution_id, ExecStatus.RUNNING)
        pumps = files.read_pumps()
        if pumps is not None:
            await _drain(pumps)
            _end_stdin(place, pumps)
        status = files.read_status()
        return ExecState(execution_id, ExecStatus.COMPLETED, EXIT_STATUS_KILLED if status is None else status)

    def _watch(self, root: Path, alive: int) -> asyncio.Future[None]:
        """Done when the process behind the pidfd ``alive`` (which is taken over) has ended. Shared by all who wait."""
        found = self._ends.get(root)
        if found is not None:
            os.close(alive)
            return found[0]
        loop = asyncio.get_running_loop()
        end: asyncio.Future[None] = loop.create_future()
        self._ends[root] = (end, alive)

        def finish() -> None:
            loop.remove_reader(alive)
            os.close(alive)
            del self._ends[root]
            if not end.done():
                end.set_result(None)

        loop.add_reader(alive, finish)
        return end

    def read_output(self, place: SandboxPlace, execution_id: str, stream: OutputStream, last_n: int) -> ExecOutput:
        """See :meth:`outgate.runtime.base.Runtime.exec_output`. Blocks."""
        return read_last_lines(_find(place, execution_id).output(stream), last_n)

    def kill(self, place: SandboxPlace, execution_id: str, scope: KillScope) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_kill`. Blocks."""
        kill_execution(place, _find(place, execution_id), scope)

    async def write_stdin(self, place: SandboxPlace, execution_id: str, data: bytes) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_write_stdin`."""
        pumps = _find(place, execution_id).read_pumps()
        if pumps is None or pumps.stdin is None:
            raise SandboxError("The execution was started without a standard input to write to.")
        pipe = open_stdin(pumps.stdin)
        if pipe is None:
            raise SandboxError("The execution's standard input was closed before.")
        try:
            await _write_all(pipe, data)
        except BrokenPipeError:
            raise SandboxError("The execution does not read its standard input any more.") from None
        finally:
            os.close(pipe)

    def close_stdin(self, place: SandboxPlace, execution_id: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_close_stdin`. Blocks."""
        pumps = _find(place, execution_id).read_pumps()
        if pumps is None or pumps.stdin is None:
            raise SandboxError("The execution was started without a standard input to close.")
        _end_stdin(place, pumps)

    def close(self) -> None:
        """Stop waiting for anything; whoever waits is cancelled. Call inside the event loop."""
        for end, alive in self._ends.values():
            asyncio.get_running_loop().remove_reader(alive)
            os.close(alive)
            end.cancel()
        self._ends.clear()


def kill_execution(place: SandboxPlace, files: ExecutionFiles, scope: KillScope) -> None:
    """SIGKILL what ``scope`` says, if the execution's own process still runs."""
    process = files.find_recorded_process()
    alive = None if process is None else open_if_alive(process, place.group)
    if process is None or alive is None:
        return
    try:
        # While the group's leader lives, held by its pidfd, its number cannot name another group.
        if scope is KillScope.GROUP:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            for child in children(process.pid):
                _kill_child(place, child, process.pid)
    finally:
        os.close(alive)


def _find(place: SandboxPlace, execution_id: str) -> ExecutionFiles:
    files = execution_files(place.disk, execution_id)
    if not files.exists():
        raise ExecutionNotFoundError(f"Devbox {place.devbox_id} has no execution {execution_id}.")
    return files


def _open_alive(place: SandboxPlace, files: ExecutionFiles) -> int | None:
    """A pidfd of the execution's own process, None when it has ended (or never began)."""
    process = files.find_recorded_process()
    return None if process is None else open_if_alive(process, place.group)


def _kill_child(place: SandboxPlace, pid: int, parent: int) -> None:
    process = find_process(pid)
    alive = None if process is None else open_if_alive(process, place.group)
    if alive is None:
        return
    if pid in children(parent):
        signal.pidfd_send_signal(alive, signal.SIGKILL)
    os.close(alive)


def _end_stdin(place: SandboxPlace, pumps: Pumps) -> None:
    holder = None if pumps.stdin is None else open_if_alive(pumps.stdin, place.group)
    if holder is not None:
        signal.pidfd_send_signal(holder, signal.SIGKILL)
        os.close(holder)


async def _drain(pumps: Pumps) -> None:
    """Wait until what the command wrote has arrived in its files."""
    for pump in (pumps.stdout, pumps.stderr):
        for _ in range(_DRAIN_STEPS_MAX):
            if is_drained(pump):
                break
            await asyncio.sleep(_DRAIN_STEP_S)


async def _write_all(pipe: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(pipe, rest) :]
        except BlockingIOError:
            room = loop.create_future()
            loop.add_writer(pipe, _set_done, room)
            try:
                await room
            finally:
                loop.remove_writer(pipe)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
