"""Processes of the host, named so that a reused number is not taken for the process that had it before."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from outgate.runtime.cgroups import holds_process
from outgate.runtime.proc_stat import read_stat


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """Process ``pid``, started ``start_ticks`` clock ticks after the host's boot (proc(5), stat field 22)."""

    pid: int
    start_ticks: int

    def __str__(self) -> str:
        return f"{self.pid} {self.start_ticks}"


def parse_process_ref(text: str) -> ProcessRef:
    """What ``str`` of a reference gave. Raises ValueError."""
    pid, start_ticks = text.split()
    return ProcessRef(int(pid), int(start_ticks))


def find_process(pid: int) -> ProcessRef | None:
    """The reference of a process that exists now (a zombie does too), or None."""
    fields = read_stat(pid)
    return None if fields is None else ProcessRef(pid, int(fields[19]))


def open_if_alive(process: ProcessRef, group: PurePosixPath) -> int | None:
    """A pidfd (to be closed by the caller) if ``process`` still runs, in control group ``group``; else None."""
    descriptor = pin_member(process.pid, group)
    if descriptor is None or find_process(process.pid) == process:
        return descriptor
    os.close(descriptor)
    return None


def is_alive(process: ProcessRef, group: PurePosixPath) -> bool:
    """Whether ``process`` still runs, in control group ``group``."""
    descriptor = open_if_alive(process, group)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def pin_member(pid: int, group: PurePosixPath) -> int | None:
    """A pidfd (to be closed by the caller) if ``pid`` is a live process in control group ``group``; else None."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    # Asked after the descriptor pinned it: the answer is about the process that the descriptor names.
    if holds_process(group, pid):
        return descriptor
    os.close(descriptor)
    return None


def has_ended(process: ProcessRef) -> bool:
    """Whether it runs no more: it is gone, or a zombie."""
    state = _state(process)
    return state is None or state in "ZX"


def is_asleep(process: ProcessRef) -> bool:
    """Whether it waits for something that a signal could interrupt; True as well when it has ended."""
    state = _state(process)
    return state is None or state in "SZX"


def _state(process: ProcessRef) -> str | None:
    fields = read_stat(process.pid)
    return None if fields is None or int(fields[19]) != process.start_ticks else fields[0]


def children(pid: int) -> tuple[int, ...]:
    """The children of a process's first thread, none if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return ()


def session_members(session: int, among: Iterable[int]) -> dict[int, int]:
    """Those of ``among`` that belong to the session whose leader has the number ``session``, each with its group."""
    found = {}
    for pid in among:
        fields = read_stat(pid)
        if fields is not None and int(fields[3]) == session:
            found[pid] = int(fields[2])
    return found
