"""The directory of one execution: all that has to be known of it, whichever daemon asks.

================  =====================================================================
``about.json``    the command and when it was asked for, see :class:`ExecutionAbout`
``queued``        there while the command waits for its turn in its shell; whoever removes it decides
``process.json``  what the OCI runtime is asked to run, only for as long as that takes
``pid``           the host's process number, written by the OCI runtime
``process``       the same with its start time, written as soon as it was read
``pumps``         the helpers, see :mod:`outgate.runtime.pumps`
``stdout``        everything that was written, as bytes
``stderr``        likewise
``status``        the exit status in decimal, as the execution's shell said it
``engine.log``    what the OCI runtime complained of
================  =====================================================================
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from outgate.runtime.base import EXIT_STATUS_KILLED, OutputStream, SandboxError, SandboxUser, StdinMode
from outgate.runtime.checks import check_id
from outgate.runtime.disk import SandboxDisk, read_pid, write_atomically
from outgate.runtime.proc import ProcessRef, find_process, parse_process_ref
from outgate.runtime.pumps import Pumps, parse_pumps, render_pumps

_STATUS_BYTES_MAX: Final = 8
"""A status is at most three digits and a newline; a sandbox that writes more wrote no status."""


@dataclass(frozen=True, slots=True)
class SandboxPlace:
    """Where a sandbox is: its id, its disk, its control group."""

    devbox_id: str
    disk: SandboxDisk
    group: PurePosixPath


@dataclass(frozen=True, slots=True)
class ExecutionAbout:
    """What was asked for. ``stream_bytes_max``: what each of its two streams may grow to on the host's disk."""

    command: str
    asked_ms: int
    stdin: StdinMode = StdinMode.NULL
    shell: str | None = None
    user: SandboxUser | None = None
    stream_bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class ExecutionFiles:
    """One execution's directory."""

    root: Path

    @property
    def about_file(self) -> Path:
        """The :class:`ExecutionAbout`."""
        return self.root / "about.json"

    @property
    def process_document(self) -> Path:
        """The OCI process."""
        return self.root / "process.json"

    @property
    def pid_file(self) -> Path:
        """Written by the OCI runtime."""
        return self.root / "pid"

    @property
    def status_file(self) -> Path:
        """What came from inside the sandbox through a pipe, 8 bytes at most; believed to be the status, no more."""
        return self.root / "status"

    @property
    def log(self) -> Path:
        """The OCI runtime's complaints."""
        return self.root / "engine.log"

    def output(self, stream: OutputStream) -> Path:
        """What was written to ``stream``."""
        return self.root / stream.value

    @property
    def cut_mark(self) -> Path:
        """There when the host stopped keeping what is written, for want of room."""
        return self.root / "cut"

    def exists(self) -> bool:
        """Whether there is such an execution."""
        return self.root.is_dir()

    def write_about(self, about: ExecutionAbout) -> None:
        """Keep what was asked for."""
        write_atomically(self.about_file, msgspec.json.encode(about))

    def read_about(self) -> ExecutionAbout | None:
        """What was asked for; None when the daemon died before it wrote that down."""
        try:
            return msgspec.json.decode(self.about_file.read_bytes(), type=ExecutionAbout)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def output_sizes(self) -> tuple[int, int]:
        """Bytes kept of standard output and of standard error."""
        return size_of(self.output(OutputStream.STDOUT)), size_of(self.output(OutputStream.STDERR))

    def is_cut(self, stream: OutputStream) -> bool:
        """Whether more was written to ``stream`` than is kept."""
        if self.cut_mark.exists():
            return True
        about = self.read_about()
        return about is not None and 0 < about.stream_bytes_max <= size_of(self.output(stream))

    @property
    def _queue_mark(self) -> Path:
        return self.root / "queued"

    def enter_queue(self) -> None:
        """From now on the execution waits for its turn."""
        self._queue_mark.touch()

    def is_queued(self) -> bool:
        """Whether it waits for its turn."""
        return self._queue_mark.exists()

    def leave_queue(self) -> bool:
        """End the waiting. True for one caller only, who may start it or give it up."""
        try:
            self._queue_mark.unlink()
        except FileNotFoundError:
            return False
        return True

    def give_up(self, exit_status: int, why: str = "") -> None:
        """Completed without ever having been started; ``why`` becomes its standard error."""
        self.output(OutputStream.STDOUT).touch()
        self.output(OutputStream.STDERR).write_text(why)
        self.status_file.write_text(f"{exit_status}\n")

    def read_status(self) -> int | None:
        """The status that the execution's shell left, or None if it left none (yet)."""
        try:
            with self.status_file.open("rb") as file:
                text = file.read(_STATUS_BYTES_MAX)
        except FileNotFoundError:
            return None
        if not text.endswith(b"\n"):
            return None
        digits = text[:-1]
        return int(digits) if digits.isdigit() and int(digits) <= 255 else EXIT_STATUS_KILLED

    def record_process(self) -> ProcessRef | None:
        """Keep the start time of the process in ``pid_file``; returns the reference, None if it is gone already."""
        pid = read_pid(self.pid_file)
        process = None if pid is None else find_process(pid)
        if process is not None:
            write_atomically(self.root / "process", str(process).encode())
        return process

    def find_recorded_process(self) -> ProcessRef | None:
        """The process, running or not. None when none was ever started (or the daemon died while it did)."""
        try:
            return parse_process_ref((self.root / "process").read_text())
        except FileNotFoundError:
            # A daemon that died between the runtime's note and its own: take up the note now.
            return self.record_process()

    def write_pumps(self, pumps: Pumps) -> None:
        """Keep the helpers' references."""
        write_atomically(self.root / "pumps", render_pumps(pumps).encode())

    def read_pumps(self) -> Pumps | None:
        """The helpers' references, None if there are none."""
        try:
            text = (self.root / "pumps").read_text()
        except FileNotFoundError:
            return None
        try:
            return parse_pumps(text)
        except ValueError as error:
            raise SandboxError(f"{self.root / 'pumps'} cannot be read ({error}).") from error


def size_of(file: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def execution_files(disk: SandboxDisk, execution_id: str) -> ExecutionFiles:
    """The directory that an execution of that id has or would have. Raises :class:`InvalidValueError`."""
    return ExecutionFiles(disk.executions / check_id(execution_id))
