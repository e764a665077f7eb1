"""Network policies: what an account allows its devboxes to reach."""

from dataclasses import dataclass
from ipaddress import IPv4Network

from outgate.model.addresses import PortRange
from outgate.model.names import HostPattern

HOSTNAMES_MAX = 1000
CIDRS_MAX = 1000
PORTS_PER_CIDR_MAX = 100


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
