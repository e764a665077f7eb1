"""What this host has to give to devboxes."""

import os

from outgate.model.desired import HostCapacity


def observe_capacity() -> HostCapacity:
    """Processors, memory and architecture, as the kernel has them."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return HostCapacity(os.uname().machine, os.cpu_count() or 1, memory_bytes >> 20)
