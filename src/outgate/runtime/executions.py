"""Executions after their start: state, waiting, output, input, and their end.

What an execution *is* can be read from its directory and from the kernel at any time; what is kept in
memory here is only who waits for its end: one pidfd per execution that somebody waits for.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
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
)
from outgate.runtime.execution_files import ExecutionFiles, SandboxPlace, execution_files, size_of
from outgate.runtime.execution_stdin import end_stdin
from outgate.runtime.file_watch import FileWatch
from outgate.runtime.output import read_last_lines
from outgate.runtime.output_stream import FollowTools, follow_file
from outgate.runtime.proc import ProcessRef, children, find_process, open_if_alive
from outgate.runtime.pumps import Pumps, is_drained

_DRAIN_PAUSES_S: Final = (*(0.002,) * 500, *(0.02,) * 1500)
"""Half a minute, mostly for a disk that stalls: a pump moves a full pipe in a millisecond."""
_UNDERWAY_BYTES_MAX: Final = (1 << 20) + (1 << 18)
"""What can be on its way at a time: a pipe as large as its owner can make it (/proc/sys/fs/pipe-max-size) and tee's
buffer. A background process that goes on writing keeps the pipe from ever being empty, and must not hold up the state
of a command that has ended: once so much has arrived, everything of the command's own has."""
_READERS: Final = 2
"""Threads that read outputs for streams: what is read was just written, so a read takes microseconds."""


class Executions:
    """The executions of all sandboxes of one host."""

    def __init__(self) -> None:
        self._ends: dict[Path, tuple[asyncio.Future[None], int]] = {}
        self._file_watch = FileWatch()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="output")

    async def wait(self, place: SandboxPlace, execution_id: str, timeout_s: float) -> ExecState:
        """See :meth:`outgate.runtime.base.Runtime.exec_wait`."""
        files = find_execution(place, execution_id)
        about = files.read_about()
        shell = None if about is None else about.shell
        if files.is_queued():
            return ExecState(execution_id, ExecStatus.QUEUED, shell=shell)
        _, pending = await asyncio.wait((self._end_of(place, files),), timeout=timeout_s)
        if pending:
            return ExecState(execution_id, ExecStatus.RUNNING, shell=shell)
        await _settle(place, files)
        status = files.read_status()
        exit_status = EXIT_STATUS_KILLED if status is None else status
        return ExecState(execution_id, ExecStatus.COMPLETED, exit_status, shell)

    def stream(
        self, place: SandboxPlace, execution_id: str, stream: OutputStream, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """See :meth:`outgate.runtime.base.Runtime.exec_stream`; the execution is not queued."""
        files = find_execution(place, execution_id)
        tools = FollowTools(self._file_watch, self._readers)
        end = self._end_of(place, files)
        return follow_file(files.output(stream), offset, end, lambda: _settle(place, files), tools)

    def _end_of(self, place: SandboxPlace, files: ExecutionFiles) -> asyncio.Future[None]:
        alive = _open_alive(place, files)
        if alive is not None:
            return self._watch(files.root, alive)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        over.set_result(None)
        return over

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
        files = find_execution(place, execution_id)
        output = read_last_lines(files.output(stream), last_n)
        return output if output.truncated else ExecOutput(output.text, files.is_cut(stream))

    def kill(self, place: SandboxPlace, execution_id: str, scope: KillScope) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_kill`. Blocks."""
        files = find_execution(place, execution_id)
        if files.leave_queue():
            files.give_up(EXIT_STATUS_KILLED)
        else:
            kill_execution(place, files, scope)

    def close(self) -> None:
        """Stop waiting for anything; whoever waits is cancelled. Call inside the event loop."""
        for end, alive in self._ends.values():
            asyncio.get_running_loop().remove_reader(alive)
            os.close(alive)
            end.cancel()
        self._ends.clear()
        self._file_watch.close()
        self._readers.shutdown()


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


def find_execution(place: SandboxPlace, execution_id: str) -> ExecutionFiles:
    """The directory of an execution that there is. Raises :class:`ExecutionNotFoundError`."""
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


async def _settle(place: SandboxPlace, files: ExecutionFiles) -> None:
    """After the end: wait for what was written, and let nobody wait to write."""
    pumps = files.read_pumps()
    if pumps is not None:
        await _drain(files, pumps)
        end_stdin(place, pumps)


async def _drain(files: ExecutionFiles, pumps: Pumps) -> None:
    """Wait until what the command wrote, and its status, have arrived in their files."""
    await _arrived(pumps.status, lambda: False)
    for pump, stream in ((pumps.stdout, OutputStream.STDOUT), (pumps.stderr, OutputStream.STDERR)):
        file = files.output(stream)
        enough = size_of(file) + _UNDERWAY_BYTES_MAX

        def is_enough(file: Path = file, enough: int = enough, stream: OutputStream = stream) -> bool:
            return size_of(file) >= enough or files.is_cut(stream)

        await _arrived(pump, is_enough)


async def _arrived(pump: ProcessRef, is_enough: Callable[[], bool]) -> None:
    for pause_s in _DRAIN_PAUSES_S:
        if is_drained(pump) or is_enough():
            return
        await asyncio.sleep(pause_s)
