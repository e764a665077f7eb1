"""Who lives on the internet that is attacked: allowed hosts, denied ones, and addresses that nobody should reach."""

from outgate.cli.demo.internet import Internet
from support.internet import EVERYTHING
from support.world import ALLOWED, ALSO, APEX, BELOW, DENIED, IN_NO_NETWORK, METADATA, OTHER_RESOLVER, PRIVATE, Host
from support.world import populate as populate_common

SHARED_ALLOWED = Host("shared.example.org", "45.45.45.40", "2a0f:4444::40")
SHARED_DENIED = Host("neighbour.example.net", "45.45.45.40", "2a0f:4444::40")
"""Another customer of the same address: what a CDN looks like from outside."""

WILD = APEX.name
"""Names below it are allowed by a wildcard; it is the attacker's zone where a case says so."""

DENIED_ZONE = "exfil.example.net"
"""A zone whose owner reads every question that is asked about it; not allowed."""

__all__ = [
    "ALLOWED",
    "ALSO",
    "APEX",
    "BELOW",
    "DENIED",
    "DENIED_ZONE",
    "IN_NO_NETWORK",
    "METADATA",
    "OTHER_RESOLVER",
    "PRIVATE",
    "SHARED_ALLOWED",
    "SHARED_DENIED",
    "WILD",
    "Host",
    "populate",
]


def populate(internet: Internet) -> None:
    """Add them all."""
    populate_common(internet)
    internet.add_host(
        SHARED_ALLOWED.name, addresses=(SHARED_ALLOWED.address4, SHARED_ALLOWED.address6), services=EVERYTHING
    )
    internet.set_records(SHARED_DENIED.name, addresses=(SHARED_DENIED.address4, SHARED_DENIED.address6))
    internet.set_records(f"*.{DENIED_ZONE}", addresses=(DENIED.address4, DENIED.address6))
