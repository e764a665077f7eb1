"""Starting one execution: pipes, their pumps, and the OCI runtime's exec. Blocking."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outgate import clock
from outgate.runtime.base import ExecSpec, KillScope, OutputStream, SandboxError, StdinMode
from outgate.runtime.bundle import STATUS_DESCRIPTOR, HostFacts, render_execution
from outgate.runtime.disk import SandboxRecord
from outgate.runtime.engine import Engine
from outgate.runtime.execution_files import ExecutionAbout, ExecutionFiles, SandboxPlace, execution_files
from outgate.runtime.executions import kill_execution
from outgate.runtime.output_budget import OutputBudget
from outgate.runtime.process_start import ProcessNotes, start_process
from outgate.runtime.pumps import PumpFiles, StartingPumps

_PRIVATE: Final = 0o600
_CANNOT_START: Final = 126
"""What shells say of a command that could not be started."""


@dataclass(frozen=True, slots=True)
class ExecutionStarter:
    """Starts executions on this host."""

    engine: Engine
    facts: HostFacts
    budget: OutputBudget

    def start(self, place: SandboxPlace, record: SandboxRecord, spec: ExecSpec, groups: tuple[Path, ...]) -> None:
        """See :meth:`outgate.runtime.base.Runtime.exec_start`; the pumps belong into the control groups ``groups``."""
        files = execution_files(place.disk, spec.execution_id)
        about = self._claim(place, files, spec)
        if about is None:
            return
        try:
            self._start(place, record, files, about, groups)
        except BaseException:
            # What was started, if it was, must not go on unknown to anybody.
            kill_execution(place, files, KillScope.GROUP)
            shutil.rmtree(files.root, ignore_errors=True)
            raise
        finally:
            self.budget.note_started(place, spec.execution_id)

    def enter_queue(self, place: SandboxPlace, spec: ExecSpec) -> bool:
        """Take note of an execution that :meth:`start_queued` starts when it is its turn; False when it is known."""
        files = execution_files(place.disk, spec.execution_id)
        if self._claim(place, files, spec) is None:
            return False
        files.enter_queue()
        self.budget.note_started(place, spec.execution_id)
        return True

    def start_queued(
        self, place: SandboxPlace, record: SandboxRecord, execution_id: str, groups: tuple[Path, ...]
    ) -> None:
        """Start what :meth:`enter_queue` noted, unless it was given up meanwhile; what cannot be started says why."""
        files = execution_files(place.disk, execution_id)
        about = files.read_about()
        if about is None or not files.leave_queue():
            return
        try:
            self._start(place, record, files, about, groups)
        except SandboxError as error:
            kill_execution(place, files, KillScope.GROUP)
            files.give_up(_CANNOT_START, f"{error.message}\n")

    def _claim(self, place: SandboxPlace, files: ExecutionFiles, spec: ExecSpec) -> ExecutionAbout | None:
        if files.exists():
            return None
        bytes_max = self.budget.make_room(place)
        try:
            # The directory is the claim to the id: whoever makes it runs the command.
            files.root.mkdir()
        except FileExistsError:
            return None
        about = ExecutionAbout(spec.command, clock.wall_ms(), spec.stdin, spec.shell, spec.user, bytes_max)
        files.write_about(about)
        return about

    def _start(
        self,
        place: SandboxPlace,
        record: SandboxRecord,
        files: ExecutionFiles,
        about: ExecutionAbout,
        groups: tuple[Path, ...],
    ) -> None:
        spec = ExecSpec(files.root.name, about.command, about.stdin, about.user, about.shell)
        document = render_execution(record.spec, spec, self.facts)
        notes = ProcessNotes(files.process_document, files.pid_file, files.log)
        owner = record.ids.first_id + (spec.user or record.spec.user).uid
        with ExitStack() as ends:
            near, far = _open_streams(files, about, owner, ends)
            pumps = StartingPumps(far, groups)
            try:
                start_process(self.engine, place, document, notes, near)
            finally:
                files.write_pumps(pumps.finish())
        files.record_process()


def _open_streams(
    files: ExecutionFiles, about: ExecutionAbout, owner: int, ends: ExitStack
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
    if about.stdin is StdinMode.PIPE:
        stdin_reading, stdin_writing = pipe()
    else:
        stdin_reading, stdin_writing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None
        ends.callback(os.close, stdin_reading)
    status_reading, status_writing = pipe()
    for file in (files.status_file, *map(files.output, OutputStream)):
        # There before anybody asks: whoever reads need not know whether the pump has opened it yet.
        file.touch(_PRIVATE)
    near = {0: stdin_reading, 1: stdout_writing, 2: stderr_writing, STATUS_DESCRIPTOR: status_writing}
    far = PumpFiles(
        stdout_reading,
        files.output(OutputStream.STDOUT),
        stderr_reading,
        files.output(OutputStream.STDERR),
        status_reading,
        files.status_file,
        stdin_writing,
        about.stream_bytes_max,
    )
    return near, far
