"""How full the kernel's table of tracked flows is. Each network namespace counts its own; the bound is the host's."""

from dataclasses import dataclass
from typing import Final

from outgate.dataplane import netns
from outgate.dataplane.sysctl import read_sysctl

FULL_AT: Final = 0.8
"""From here on the table counts as nearly full: at its bound the kernel drops what is new, of every devbox."""
WELL_BELOW: Final = 0.7
"""Below this it is well again; between the two nothing changes."""


@dataclass(frozen=True, slots=True)
class FlowTableFill:
    """Tracked flows, and how many there may be."""

    count: int
    limit: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.count / self.limit

    def __str__(self) -> str:
        return f"{self.count} of {self.limit} tracked flows ({self.share:.0%})"


def observe_flow_table(namespace: str) -> FlowTableFill | None:
    """The table of the network namespace ``namespace``; None without such a namespace, or a kernel that tells."""
    try:
        with netns.entered(namespace):
            count, limit = read_sysctl("netfilter/nf_conntrack_count"), read_sysctl("netfilter/nf_conntrack_max")
    except netns.NamespaceError:
        return None
    if count is None or limit is None or int(limit) == 0:
        return None
    return FlowTableFill(int(count), int(limit))
