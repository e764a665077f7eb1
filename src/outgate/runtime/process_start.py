"""One process into a running sandbox, by the OCI runtime's exec: what executions and file transfers share. Blocking."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outgate.runtime.base import SandboxError, SandboxNotFoundError
from outgate.runtime.bundle import Document
from outgate.runtime.engine import COMMAND_S_MAX, Engine, read_last_words
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.proc import pin_member
from outgate.runtime.spawn import spawn
from outgate.runtime.staging import run_beside


@dataclass(frozen=True, slots=True)
class ProcessNotes:
    """What the OCI runtime reads and writes at a start: the process, its number, and complaints.

    ``console``: where somebody listens for the pseudo terminal of a process that wants one.
    """

    document: Path
    pid_file: Path
    log: Path
    console: Path | None = None


def start_process(
    engine: Engine, place: SandboxPlace, document: Document, notes: ProcessNotes, near: Mapping[int, int]
) -> None:
    """Start ``document`` in the sandbox with descriptors ``near`` (its number → ours); returns when it runs.

    The document is gone afterwards: its environment may hold secrets, and nobody needs it any more.
    Raises :class:`SandboxNotFoundError` and :class:`SandboxError`.
    """
    pid = place.disk.read_pid()
    pinned = None if pid is None else pin_member(pid, place.group)
    if pid is None or pinned is None:
        raise SandboxNotFoundError(f"Devbox {place.devbox_id} is not running on this host.")
    try:
        notes.document.write_bytes(msgspec.json.encode(document))
        command = engine.exec_arguments(
            place.devbox_id, notes.document, notes.pid_file, notes.log, console=notes.console
        )
        status = run_beside(pid, pinned, lambda: spawn(command, near)).wait(COMMAND_S_MAX)
    finally:
        os.close(pinned)
        notes.document.unlink(missing_ok=True)
    if status != 0:
        raise SandboxError(f"The command could not be started: {read_last_words(notes.log)}")
