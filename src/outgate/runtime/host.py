"""What this host offers to sandboxes. Read once, when the runtime is opened."""

import platform
import resource
from pathlib import Path

from outgate.runtime.bundle import HostFacts
from outgate.runtime.cgroups import CgroupLayout

_LIMITS = ("cpu", "memory", "pids")


def observe_host(layout: CgroupLayout) -> HostFacts:
    """The facts that a bundle is rendered from."""
    _, open_files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    return HostFacts(
        machine=platform.machine(),
        limits=frozenset(name for name in _LIMITS if layout.has(name)),
        swap_limit=_has_swap_limit(layout),
        open_files_max=open_files_max,
    )


def _has_swap_limit(layout: CgroupLayout) -> bool:
    """Version 1 has the file only where the kernel accounts for swap; version 2 hides it in the root group."""
    if "memory" in layout.controllers:
        return (layout.controllers["memory"] / "memory.memsw.limit_in_bytes").exists()
    return "memory" in layout.unified_controllers and Path("/proc/swaps").exists()
