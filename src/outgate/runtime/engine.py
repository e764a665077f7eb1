"""Command lines of the OCI runtimes, and running them. ``runc`` is the default; ``crun`` and ``runsc`` by setting."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from outgate.errors import HostNotCapableError
from outgate.runtime.base import SandboxError
from outgate.runtime.disk import remove_tree
from outgate.runtime.spawn import ENVIRONMENT

_MESSAGE_BYTES_MAX: Final = 4096
"""How much of what a runtime printed is read and shown: its last words are the reason."""
COMMAND_S_MAX: Final = 60.0
"""After this a runtime's command counts as hung: it takes some 20 ms otherwise."""


class EngineKind(StrEnum):
    """The OCI runtimes that the driver knows."""

    RUNC = "runc"
    CRUN = "crun"
    RUNSC = "runsc"


@dataclass(frozen=True, slots=True)
class Engine:
    """One OCI runtime. ``root``: where it keeps its own notes, gone after a boot of the host."""

    kind: EngineKind
    binary: Path
    root: Path

    def run_arguments(self, sandbox: str, bundle: Path, pid_file: Path) -> tuple[str, ...]:
        """Make and start a sandbox, detached; descriptor 3 goes along."""
        bundle_options = (f"--bundle={bundle}", f"--pid-file={pid_file}")
        return (*self._base(), "run", "--detach", *bundle_options, *self._pass_descriptor(), sandbox)

    def exec_arguments(
        self, sandbox: str, process: Path, pid_file: Path, log: Path, *, console: Path | None = None
    ) -> tuple[str, ...]:
        """Start a process in a sandbox, detached, with this command's own standard streams and descriptor 3.

        ``console``: the socket to which the pseudo terminal goes of a process that wants one.
        """
        sockets = () if console is None else (f"--console-socket={console}",)
        files = (f"--process={process}", f"--pid-file={pid_file}", *sockets)
        return (*self._base(), f"--log={log}", "exec", "--detach", *files, *self._pass_descriptor(), sandbox)

    def forget(self, sandbox: str) -> None:
        """Remove the runtime's notes of a sandbox whose processes are gone; it may have none.

        gVisor is asked, for it has helpers of its own to end. The notes of runc and crun are a directory and
        nothing else; their ``delete`` would first wait for the host's init to collect the dead first process.
        """
        if self.kind is EngineKind.RUNSC:
            run_command((*self._base(), "delete", "--force", sandbox))
        elif (self.root / sandbox).exists():
            remove_tree(self.root / sandbox)

    def _base(self) -> tuple[str, ...]:
        return (str(self.binary), f"--root={self.root}")

    def _pass_descriptor(self) -> tuple[str, ...]:
        return ("--pass-fd=3:3",) if self.kind is EngineKind.RUNSC else ("--preserve-fds=1",)


def find_engine(kind: EngineKind, root: Path) -> Engine:
    """The runtime of that name on this host's search path. Raises :class:`HostNotCapableError`."""
    binary = shutil.which(kind.value)
    if binary is None:
        raise HostNotCapableError(f"{kind.value} is not installed; install the package {kind.value}.")
    return Engine(kind, Path(binary), root)


def run_command(arguments: Sequence[str]) -> None:
    """Run a command to its end. Raises :class:`SandboxError` with its last words if it fails."""
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_S_MAX,
            check=False,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"{arguments[0]} did not finish within {COMMAND_S_MAX:.0f} s.") from None
    if done.returncode != 0:
        raise SandboxError(f"{arguments[0]} failed: {last_words(done.stderr or done.stdout)}")


def last_words(output: bytes) -> str:
    """The end of what a command printed, as one line of text."""
    return " ".join(output[-_MESSAGE_BYTES_MAX:].decode(errors="replace").split()) or "it said nothing"


def read_last_words(file: Path) -> str:
    """The same of a log file, which may be missing or large."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - _MESSAGE_BYTES_MAX))
            return last_words(log.read(_MESSAGE_BYTES_MAX))
    except FileNotFoundError:
        return last_words(b"")
