"""Terminals: programs in a sandbox with somebody outside at their streams.

Started as executions are, but their streams end in this process: the master of a pseudo terminal that the OCI
runtime made in the sandbox's own /dev/pts, or three pipes. So they end with the daemon, which executions do not.
"""

import array
import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from outgate.runtime import cgroups
from outgate.runtime.base import EXIT_STATUS_KILLED, SandboxError, TerminalSpec
from outgate.runtime.bundle import STATUS_DESCRIPTOR, HostFacts, render_terminal
from outgate.runtime.disk import SandboxRecord, read_pid
from outgate.runtime.engine import Engine
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.proc import ProcessRef, find_process, open_if_alive, pin_member, session_members
from outgate.runtime.process_start import ProcessNotes, start_process

_CONSOLE_S_MAX: Final = 5.0
"""The OCI runtime sends the pseudo terminal before it says that the program was started."""
_MASTER_DEVICE: Final = os.makedev(5, 2)
"""/dev/ptmx, and every master that was opened by it (Linux' admin-guide/devices.txt)."""
_STATUS_BYTES_MAX: Final = 8


@dataclass(slots=True)
class Terminal:
    """One that runs. ``leader`` is the shell around the program; ``status`` the pipe where it leaves the exit status.

    ``streams``: the master of the pseudo terminal alone, or standard input (to write), output and error (to read).
    All descriptors belong to whoever has the terminal, and close by :meth:`close`.
    """

    leader: ProcessRef
    group: PurePosixPath
    directories: tuple[Path, ...]
    status: int
    streams: tuple[int, ...]

    @property
    def is_pty(self) -> bool:
        """Whether there is a pseudo terminal."""
        return len(self.streams) == 1

    def read_status(self) -> int:
        """The exit status, once ``status`` is readable. A program that vanished without one was killed."""
        digits = os.read(self.status, _STATUS_BYTES_MAX).strip()
        return int(digits) if digits.isdigit() and int(digits) <= 255 else EXIT_STATUS_KILLED

    def foreground(self) -> int | None:
        """The number of the process group that a signal goes to; None when nothing is left that has one."""
        if not self.is_pty:
            return self.leader.pid
        try:
            return os.tcgetpgrp(self.streams[0]) or None
        except OSError:
            return None

    def send_signal(self, number: int, groups: Collection[int]) -> bool:
        """Signal the members of process groups ``groups`` of this terminal's session; whether there was any. Blocks.

        The shell around the program is left out: it has to live to leave the exit status.
        """
        leader = open_if_alive(self.leader, self.group)
        if leader is None:
            return False
        try:
            members = session_members(self.leader.pid, cgroups.processes(self.directories))
            wanted = [pid for pid, group in members.items() if group in groups and pid != self.leader.pid]
            return bool([pid for pid in wanted if self._signal_member(pid, number, groups)])
        finally:
            os.close(leader)

    def _signal_member(self, pid: int, number: int, groups: Collection[int]) -> bool:
        member = pin_member(pid, self.group)
        if member is None:
            return False
        try:
            # Looked at again now that the descriptor holds the number.
            if session_members(self.leader.pid, (pid,)).get(pid) not in groups:
                return False
            signal.pidfd_send_signal(member, number)
        except ProcessLookupError:
            return False
        else:
            return True
        finally:
            os.close(member)

    def end_leader(self) -> None:
        """SIGKILL the shell around the program: nobody waits for its status any more."""
        leader = open_if_alive(self.leader, self.group)
        if leader is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(leader, signal.SIGKILL)
            os.close(leader)

    def release_pipes(self) -> None:
        """Close this process's ends of the pipes, once somebody else has them. A pseudo terminal is kept."""
        if not self.is_pty:
            for descriptor in self.streams:
                os.close(descriptor)
            self.streams = ()

    def close(self) -> None:
        """Close the descriptors. For a pseudo terminal that is the hang-up, if nobody else holds its master."""
        for descriptor in (self.status, *self.streams):
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class TerminalStarter:
    """Starts terminals on this host. ``directory``: where the short-lived files of a start lie; root's alone."""

    engine: Engine
    facts: HostFacts
    directory: Path

    def start(
        self, place: SandboxPlace, record: SandboxRecord, spec: TerminalSpec, directories: tuple[Path, ...]
    ) -> Terminal:
        """Start a terminal; ``directories`` are the sandbox's control groups. Blocks.

        Raises :class:`SandboxNotFoundError` and :class:`SandboxError`.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = Path(tempfile.mkdtemp(dir=self.directory))
        kept: list[int] = []
        try:
            with ExitStack() as ends:
                status, near, streams = _open_streams(spec, record.ids.first_id + record.spec.user.uid, ends, kept)
                console = _listen(files / "console", ends) if spec.size is not None else None
                near[STATUS_DESCRIPTOR] = status[1]
                notes = ProcessNotes(
                    files / "process.json", files / "pid", files / "log", None if console is None else files / "console"
                )
                start_process(self.engine, place, render_terminal(record.spec, spec, self.facts), notes, near)
                if console is not None:
                    streams = (_receive_master(console),)
                    kept.extend(streams)
            leader = _find_leader(files / "pid")
        except BaseException:
            for descriptor in kept:
                os.close(descriptor)
            raise
        finally:
            shutil.rmtree(files, ignore_errors=True)
        return Terminal(leader, place.group, directories, status[0], streams)


def _open_streams(
    spec: TerminalSpec, owner: int, ends: ExitStack, kept: list[int]
) -> tuple[tuple[int, int], dict[int, int], tuple[int, ...]]:
    """The status pipe, the program's own ends by their numbers, and this process's ends.

    ``ends`` closes the program's; ``kept`` lists those that stay. The pipes belong to the program's user, who may
    then open them anew as /dev/stdout and the like.
    """

    def pipe(mine: int) -> tuple[int, int]:
        both = os.pipe2(os.O_CLOEXEC)
        kept.append(both[mine])
        ends.callback(os.close, both[1 - mine])
        os.fchown(both[1 - mine], owner, owner)
        return both

    status = pipe(0)
    if spec.size is not None:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        ends.callback(os.close, nothing)
        return status, {0: nothing, 1: nothing, 2: nothing}, ()
    stdin, stdout, stderr = pipe(1), pipe(0), pipe(0)
    return status, {0: stdin[0], 1: stdout[1], 2: stderr[1]}, (stdin[1], stdout[0], stderr[0])


def _listen(path: Path, ends: ExitStack) -> socket.socket:
    listening = ends.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listening.bind(str(path))
    listening.listen(1)
    listening.settimeout(_CONSOLE_S_MAX)
    return listening


def _receive_master(console: socket.socket) -> int:
    """The descriptor that the OCI runtime sends, proved to be a pseudo terminal's master."""
    try:
        sender, _ = console.accept()
        with sender:
            sender.settimeout(_CONSOLE_S_MAX)
            # One descriptor; what comes with it is its name, which nobody needs.
            _, ancillary, _, _ = sender.recvmsg(
                4096, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
    except OSError as error:
        raise SandboxError(f"The program's terminal did not arrive: {error}.") from error
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    if len(received) != 1:
        raise SandboxError("The OCI runtime sent no terminal.")
    status = os.fstat(received[0])
    # It was opened by name inside the sandbox, whose root may have put something else there.
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _MASTER_DEVICE:
        os.close(received[0])
        raise SandboxError("What is at /dev/ptmx in the devbox is not a terminal.")
    return received[0]


def _find_leader(pid_file: Path) -> ProcessRef:
    pid = read_pid(pid_file)
    process = None if pid is None else find_process(pid)
    # A program that has ended so soon left its status in the pipe; process 0 is nobody's.
    return process or ProcessRef(0, 0)
