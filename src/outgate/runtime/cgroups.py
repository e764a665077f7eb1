"""Control groups, version 1, 2 and both at once: where they are, what they hold, and their removal.

The OCI runtime makes a sandbox's groups and writes their limits. This module finds them again, proves
that a process belongs to a sandbox (which no reuse of process numbers can forge), kills what is left
and removes what the runtime left behind.
"""

import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from outgate.runtime.proc_stat import read_stat

_LIMITED = ("cpu", "memory", "pids")
"""The controllers that hold a sandbox to its size."""


@dataclass(frozen=True, slots=True)
class CgroupLayout:
    """Where the hierarchies of this host are mounted.

    ``controllers`` gives each version 1 controller's mount; ``unified`` is the version 2 mount and
    ``unified_controllers`` what it controls (nothing, on a host where version 1 has it all).
    """

    controllers: Mapping[str, Path]
    unified: Path | None
    unified_controllers: frozenset[str]

    def has(self, controller: str) -> bool:
        """Whether ``controller`` can hold a sandbox to a limit, in either version."""
        return controller in self.controllers or controller in self.unified_controllers

    @property
    def missing_limits(self) -> tuple[str, ...]:
        """The limits that cannot be enforced on this host; none on an ordinary one."""
        return tuple(name for name in _LIMITED if not self.has(name))

    def directories(self, group: PurePosixPath) -> tuple[Path, ...]:
        """Where ``group`` (absolute, as in ``cgroupsPath``) lies in each hierarchy, whether it exists or not."""
        mounts = [*self.controllers.values(), *((self.unified,) if self.unified else ())]
        return tuple(dict.fromkeys(mount / group.relative_to("/") for mount in mounts))

    def limiting_directories(self, group: PurePosixPath) -> tuple[Path, ...]:
        """The same for those hierarchies alone that limit something."""
        limiting = [self.controllers[name] for name in _LIMITED if name in self.controllers]
        if self.unified is not None and not self.unified_controllers.isdisjoint(_LIMITED):
            limiting.append(self.unified)
        return tuple(dict.fromkeys(mount / group.relative_to("/") for mount in limiting))


def observe_layout(mountinfo: Path = Path("/proc/self/mountinfo")) -> CgroupLayout:
    """The layout of this host, as its mount table has it."""
    controllers: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount = Path(left.split()[4])
        kind, _, *options = right.split()
        if kind == "cgroup2":
            unified = unified or mount
        elif kind == "cgroup":
            for option in ",".join(options).split(","):
                controllers.setdefault(option, mount)
    for foreign in ("rw", "ro", "xattr", "clone_children", "noprefix"):
        controllers.pop(foreign, None)
    offered = frozenset((unified / "cgroup.controllers").read_text().split()) if unified else frozenset[str]()
    return CgroupLayout(controllers, unified, offered)


def holds_process(group: PurePosixPath, pid: int) -> bool:
    """Whether ``pid`` is a live process inside ``group``, in at least one hierarchy, at or below it."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    fields = read_stat(pid)
    if fields is None or fields[0] in "ZX":
        return False
    groups = (PurePosixPath(line.split(":", 2)[2]) for line in lines)
    return any(own == group or group in own.parents for own in groups)


def processes(directories: Iterable[Path]) -> frozenset[int]:
    """All processes in these groups and in groups below them. Groups that do not exist hold none."""
    found: set[int] = set()
    for directory in directories:
        for below, _, _ in os.walk(directory):
            with suppress(FileNotFoundError, OSError):
                found.update(int(pid) for pid in (Path(below) / "cgroup.procs").read_text().split())
    # A process of a foreign pid namespace (a host's, seen from within a container) reads as 0.
    return frozenset(found - {0})


def kill_processes(group: PurePosixPath, pids: Iterable[int]) -> None:
    """SIGKILL those of ``pids`` that are in ``group`` at the moment of the kill."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            # The descriptor pins the process; only then is the question whose it is worth asking.
            if holds_process(group, pid):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def remove_groups(directories: Iterable[Path]) -> tuple[Path, ...]:
    """Remove the groups and those below them; returns the ones that would not go (still in use)."""
    stuck: list[Path] = []
    for directory in directories:
        for below, _, _ in os.walk(directory, topdown=False):
            try:
                Path(below).rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                stuck.append(Path(below))
    return tuple(stuck)


def count_oom_kills(layout: CgroupLayout, group: PurePosixPath) -> int:
    """How many processes of ``group`` the kernel killed for want of memory; 0 if the group is gone."""
    relative = group.relative_to("/")
    files = []
    if "memory" in layout.controllers:
        files.append(layout.controllers["memory"] / relative / "memory.oom_control")
    elif layout.unified is not None:
        files.append(layout.unified / relative / "memory.events")
    for file in files:
        with suppress(FileNotFoundError):
            for line in file.read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0
