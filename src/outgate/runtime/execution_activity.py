"""When the executions of a sandbox ended: what its idleness is judged by. Blocking."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from outgate.runtime.base import OutputStream
from outgate.runtime.execution_files import ExecutionFiles, SandboxPlace
from outgate.runtime.proc import open_if_alive


def find_ends(place: SandboxPlace) -> Mapping[str, int | None]:
    """See :meth:`outgate.runtime.base.Runtime.exec_ends`. One that waits for its turn counts as running."""
    try:
        roots = tuple(place.disk.executions.iterdir())
    except FileNotFoundError:
        return {}
    return {root.name: _find_end_ms(place, ExecutionFiles(root)) for root in roots}


def _find_end_ms(place: SandboxPlace, files: ExecutionFiles) -> int | None:
    if files.is_queued():
        return None
    process = files.find_recorded_process()
    alive = None if process is None else open_if_alive(process, place.group)
    if alive is not None:
        os.close(alive)
        return None
    # What was written last: its status, or output of something that it left in the background.
    written = (files.status_file, files.output(OutputStream.STDOUT), files.output(OutputStream.STDERR), files.root)
    return max(_written_ms(path) for path in written)


def _written_ms(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns // 1_000_000
    return 0
