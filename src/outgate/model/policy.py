"""Network policies: what an account allows its devboxes to reach."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Final

from outgate.model.addresses import PortRange
from outgate.model.names import HostPattern

HOSTNAMES_MAX = 1000
CIDRS_MAX = 1000
PORTS_PER_CIDR_MAX = 100
EGRESS_FLAGS: Final = (
    "allow_all",
    "allow_devbox_to_devbox",
    "allow_agent_gateway",
    "allow_mcp_gateway",
    "allow_runloop_mirrors",
)
"""The booleans of :class:`EgressRules`. Bodies, documents and command lines call them the same."""
EGRESS_LISTS: Final = ("allowed_hostnames", "allowed_cidrs")
"""Its lists: with the flags, all that opens anything."""


class EnforcementMode(StrEnum):
    """What becomes of what a policy's rules do not allow."""

    ENFORCE = "enforce"
    REPORT_ONLY = "report_only"
    """It passes and is on record. The deny floor, tunnels and limits hold all the same."""


@dataclass(frozen=True, slots=True)
class CidrRule:
    """One entry of ``allowed_cidrs``. No ports means every port and every protocol."""

    network: IPv4Network
    ports: tuple[PortRange, ...] = ()

    def __str__(self) -> str:
        if not self.ports:
            return str(self.network)
        return f"{self.network} {', '.join(_render_ports(p) for p in self.ports)}"


def _render_ports(ports: PortRange) -> str:
    protocol = "tcp+udp" if ports.protocol is None else ports.protocol.name.lower()
    span = str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
    return f"{protocol}/{span}"


@dataclass(frozen=True, slots=True)
class EgressRules:
    """What leaves. The default of every field is the narrowest: a bare ``EgressRules()`` denies all."""

    allow_all: bool = False
    allow_devbox_to_devbox: bool = False
    allow_agent_gateway: bool = False
    allow_mcp_gateway: bool = False
    allow_runloop_mirrors: bool = False
    allowed_hostnames: tuple[HostPattern, ...] = ()
    allowed_cidrs: tuple[CidrRule, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """A policy as enforcement sees it: one immutable revision.

    ``number`` names the policy inside one installation's kernel objects (``policy_7``) and never
    changes; ``revision`` counts the policy's stored versions from 1.
    """

    id: str
    name: str
    number: int
    revision: int
    egress: EgressRules
    enforcement: EnforcementMode = EnforcementMode.ENFORCE
