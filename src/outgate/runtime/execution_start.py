"""Starting one execution: pipes, their pumps, and the OCI runtime's exec. Blocking."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from outgate.runtime.base import ExecSpec, KillScope, OutputStream, SandboxError, SandboxNotFoundError, StdinMode
from outgate.runtime.bundle import STATUS_DESCRIPTOR, HostFacts, render_execution
from outgate.runtime.disk import SandboxRecord
from outgate.runtime.engine import COMMAND_S_MAX, Engine, read_last_words
from outgate.runtime.execution_files import ExecutionFiles, SandboxPlace, execution_files
from outgate.runtime.executions import kill_execution
from outgate.runtime.proc import pin_member
from outgate.runtime.pumps import PumpFiles, StartingPumps
from outgate.runtime.spawn import spawn
from outgate.runtime.staging import run_beside

_PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class ExecutionStarter:
    """Starts executions on this host."""

    engine: Engine
    facts: HostFacts

    def start(self, place: SandboxPlace, record: SandboxRecord, spec: ExecSpec, groups: tuple[Path, ...]) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_start`; the pumps belong into the control groups ``groups``."""
        files = execution_files(place.disk, spec.execution_id)
        try:
            # The directory is the claim to the id: whoever makes it runs the command.
            files.root.mkdir()
        except FileExistsError:
            return
        try:
            self._start(place, record, spec, files, groups)
        except BaseException:
            # What was started, if it was, must not go on unknown to anybody.
            kill_execution(place, files, KillScope.GROUP)
            shutil.rmtree(files.root, ignore_errors=True)
            raise

    def _start(
        self,
        place: SandboxPlace,
        record: SandboxRecord,
        spec: ExecSpec,
        files: ExecutionFiles,
        groups: tuple[Path, ...],
    ) -> None:
        document = render_execution(record.spec, spec, self.facts)
        files.process_document.write_bytes(msgspec.json.encode(document))
        owner = record.ids.first_id + (spec.user or record.spec.user).uid
        with ExitStack() as ends:
            near, far = _open_streams(files, spec.stdin, owner, ends)
            pumps = StartingPumps(far, groups)
            try:
                status = self._run(place, files, near)
            finally:
                files.write_pumps(pumps.finish())
            if status != 0:
                raise SandboxError(f"The command could not be started: {read_last_words(files.log)}")
        files.record_process()

    def _run(self, place: SandboxPlace, files: ExecutionFiles, near: dict[int, int]) -> int:
        command = self.engine.exec_arguments(place.devbox_id, files.process_document, files.pid_file, files.log)
        pid = place.disk.read_pid()
        pinned = None if pid is None else pin_member(pid, place.group)
        if pid is None or pinned is None:
            raise SandboxNotFoundError(f"Devbox {place.devbox_id} is not running on this host.")
        try:
            return run_beside(pid, pinned, lambda: spawn(command, near)).wait(COMMAND_S_MAX)
        finally:
            os.close(pinned)


def _open_streams(
    files: ExecutionFiles, stdin: StdinMode, owner: int, ends: ExitStack
) -> tuple[dict[int, int], PumpFiles]:
    """The descriptors of the command, and what the pumps need. ``ends`` closes this process's own of all of them.

    The pipes belong to the command's user, who may then open them anew as /dev/stdout and the like.
    """

    def pipe() -> tuple[int, int]:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        for end in (reading, writing):
            ends.callback(os.close, end)
        os.fchown(writing, owner, owner)
        return reading, writing

    stdout_reading, stdout_writing = pipe()
    stderr_reading, stderr_writing = pipe()
    if stdin is StdinMode.PIPE:
        stdin_reading, stdin_writing = pipe()
    else:
        stdin_reading, stdin_writing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None
        ends.callback(os.close, stdin_reading)
    status = os.open(files.status_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _PRIVATE)
    ends.callback(os.close, status)
    near = {0: stdin_reading, 1: stdout_writing, 2: stderr_writing, STATUS_DESCRIPTOR: status}
    far = PumpFiles(
        stdout_reading,
        files.output(OutputStream.STDOUT),
        stderr_reading,
        files.output(OutputStream.STDERR),
        stdin_writing,
    )
    return near, far
