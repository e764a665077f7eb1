"""How much of the host's disk the executions of one sandbox may fill with what they write.

All of a sandbox's executions share one budget. What has ended is forgotten, oldest first, when something new
needs the room; while things run, the agent looks every few seconds, and when all outgrow the budget it has the
pumps of what runs drop the rest. Between two looks each stream is still bounded by what was left of the budget when
it began (see :mod:`outgate.runtime.pumps`).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from threading import Lock
from typing import Final

from outgate.runtime.base import SandboxBusyError
from outgate.runtime.execution_files import ExecutionFiles, SandboxPlace, execution_files
from outgate.runtime.proc import is_alive
from outgate.runtime.pumps import stop_keeping

OUTPUT_BYTES_MAX: Final = 4 << 30
"""The budget: as large as a small devbox's memory twice over, and far more than anybody reads."""
KEPT_MAX: Final = 1000
"""Executions of one sandbox that are remembered. A client asks for one within minutes, if at all."""
OPEN_MAX: Final = 500
"""Executions of one sandbox that run, wait for their turn, or left something in the background that can write."""
_ROOM_SHARE: Final = 4
"""A new execution finds at least a quarter of the budget free, unless what runs has taken it."""
_STREAM_BYTES_MIN: Final = 1 << 16
_STATUS_BYTES_MAX: Final = 8


@dataclass(slots=True)
class _Outputs:
    """Executions of one sandbox: those that ended with their bytes, oldest first; those that may still grow."""

    ended: dict[str, int] = field(default_factory=dict)
    open: dict[str, None] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class OutputBudget:
    """The budgets of all sandboxes of one host. Safe to use from several threads; all methods block."""

    def __init__(self, bytes_max: int = OUTPUT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._outputs: dict[str, _Outputs] = {}
        self._lock = Lock()

    def make_room(self, place: SandboxPlace) -> int:
        """Forget what must go; how many bytes each stream of a new execution may have.

        Raises :class:`SandboxBusyError` when too many run.
        """
        with self._held(place) as outputs:
            taken = _settle(place, outputs)
            if len(outputs.open) >= OPEN_MAX:
                raise SandboxBusyError(
                    f"{OPEN_MAX} commands run in devbox {place.devbox_id}; let one of them end first."
                )
            room = self._bytes_max - self._bytes_max // _ROOM_SHARE
            while outputs.ended and (taken > room or len(outputs.ended) + len(outputs.open) >= KEPT_MAX):
                taken -= _forget_oldest(place, outputs)
            return max(self._bytes_max - taken, _STREAM_BYTES_MIN)

    def note_started(self, place: SandboxPlace, execution_id: str) -> None:
        """There is an execution that may write."""
        with self._held(place) as outputs:
            outputs.ended.pop(execution_id, None)
            outputs.open[execution_id] = None

    def enforce(self, place: SandboxPlace) -> None:
        """Look at what runs, and have it dropped what there is no room for. Cheap where nothing runs."""
        with self._held(place) as outputs:
            if _settle(place, outputs) > self._bytes_max:
                for execution_id in outputs.open:
                    _cut(execution_files(place.disk, execution_id))

    def forget(self, devbox_id: str) -> None:
        """The sandbox is gone."""
        with self._lock:
            self._outputs.pop(devbox_id, None)

    @contextmanager
    def _held(self, place: SandboxPlace) -> Iterator[_Outputs]:
        with self._lock:
            outputs = self._outputs.get(place.devbox_id)
            if outputs is None:
                outputs = self._outputs[place.devbox_id] = _find_outputs(place)
        with outputs.lock:
            yield outputs


def _find_outputs(place: SandboxPlace) -> _Outputs:
    """What an earlier daemon left."""
    try:
        found = sorted((entry.stat().st_mtime_ns, entry.name) for entry in place.disk.executions.iterdir())
    except FileNotFoundError:
        found = []
    return _Outputs(open=dict.fromkeys(name for _, name in found))


def _settle(place: SandboxPlace, outputs: _Outputs) -> int:
    """The bytes taken by all; executions that cannot grow any more are moved to the ended ones."""
    taken = sum(outputs.ended.values())
    for execution_id in tuple(outputs.open):
        files = execution_files(place.disk, execution_id)
        if not files.exists():
            del outputs.open[execution_id]
            continue
        # Asked before the size is read: what has ended does not grow afterwards.
        is_over = _is_over(files, place.group)
        _keep_short(files)
        size = sum(files.output_sizes())
        taken += size
        if is_over:
            del outputs.open[execution_id]
            outputs.ended[execution_id] = size
    return taken


def _is_over(files: ExecutionFiles, group: PurePosixPath) -> bool:
    if files.is_queued():
        return False
    pumps = files.read_pumps()
    own = files.find_recorded_process()
    writers = (own, *((pumps.stdout, pumps.stderr) if pumps is not None else ()))
    return not any(writer is not None and is_alive(writer, group) for writer in writers)


def _keep_short(files: ExecutionFiles) -> None:
    """A program can take the status descriptor from the shell around it (ptrace(2)) and write what it likes."""
    with suppress(FileNotFoundError):
        if files.status_file.stat().st_size > _STATUS_BYTES_MAX:
            with files.status_file.open("rb+") as file:
                file.truncate(_STATUS_BYTES_MAX)


def _cut(files: ExecutionFiles) -> None:
    pumps = files.read_pumps()
    if pumps is None:
        return
    files.cut_mark.touch()
    for pump in (pumps.stdout, pumps.stderr):
        stop_keeping(pump)


def _forget_oldest(place: SandboxPlace, outputs: _Outputs) -> int:
    execution_id, size = next(iter(outputs.ended.items()))
    del outputs.ended[execution_id]
    shutil.rmtree(execution_files(place.disk, execution_id).root, ignore_errors=True)
    return size
