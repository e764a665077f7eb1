"""Who lives on the internet that is attacked: allowed hosts, denied ones, and addresses that nobody should reach."""

from outgate.cli.demo.internet import Internet
from support.internet import EVERYTHING, Service, ServiceKind
from support.world import ALLOWED, ALSO, APEX, BELOW, DENIED, IN_NO_NETWORK, METADATA, OTHER_RESOLVER, PRIVATE, Host
from support.world import populate as populate_common

SHARED_ALLOWED = Host("shared.example.org", "45.45.45.40", "2a0f:4444::40")
SHARED_DENIED = Host("neighbour.example.net", "45.45.45.40", "2a0f:4444::40")
"""Another customer of the same address: what a CDN looks like from outside."""

TAPE = Host("tape-desk.example.org", "45.45.45.41", "2a0f:4444::41")
"""An allowed host that keeps every byte it gets on 80, 443 and 8080, for readers of any dialect."""
TENANT = "tenant.example.net"
"""A denied name that lives on the same addresses: whoever gets it into a handshake or a request there has won."""

WILD = APEX.name
"""Names below it are allowed by a wildcard; it is the attacker's zone where a case says so."""

OTHER_RESOLVER6 = "2a0f:4444::77"
"""Of the same machine as ``OTHER_RESOLVER``: a public resolver that takes lookups in every way there is."""

DENIED_ZONE = "exfil.example.net"
"""A zone whose owner reads every question that is asked about it; not allowed."""

TALKATIVE = Host("talkative.example.org", "45.45.46.21", "2a0f:4444::21")
"""Echoes on the ports of protocols that name other addresses in what they say: FTP, SIP, IRC, H.323, PPTP."""
TALKATIVE_PORTS = (21, 1720, 1723, 5060, 6667)

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
    "OTHER_RESOLVER6",
    "PRIVATE",
    "SHARED_ALLOWED",
    "SHARED_DENIED",
    "TALKATIVE",
    "TALKATIVE_PORTS",
    "TAPE",
    "TENANT",
    "WILD",
    "Host",
    "populate",
]


_LOOKUPS = (
    Service(ServiceKind.DNS, 53),
    Service(ServiceKind.DNS, 5353),
    Service(ServiceKind.SINK, 853),
    Service(ServiceKind.UDP_SINK, 853),
)
"""DNS; DNS on another port; DNS over TLS and over QUIC (their first bytes are enough)."""


def populate(internet: Internet) -> None:
    """Add them all."""
    populate_common(internet)
    internet.add_host(
        SHARED_ALLOWED.name, addresses=(SHARED_ALLOWED.address4, SHARED_ALLOWED.address6), services=EVERYTHING
    )
    internet.add_host(
        TAPE.name,
        addresses=(TAPE.address4, TAPE.address6),
        services=tuple(Service(ServiceKind.TAPE, port) for port in (80, 443, 8080)),
    )
    internet.add_host(
        TALKATIVE.name,
        addresses=(TALKATIVE.address4,),
        services=tuple(Service(ServiceKind.ECHO, port) for port in TALKATIVE_PORTS),
    )
    internet.set_records(TENANT, addresses=(TAPE.address4, TAPE.address6))
    internet.set_records(SHARED_DENIED.name, addresses=(SHARED_DENIED.address4, SHARED_DENIED.address6))
    internet.add_host(
        "resolver.example.net", addresses=(OTHER_RESOLVER, OTHER_RESOLVER6), services=(*EVERYTHING, *_LOOKUPS)
    )
    internet.set_records(f"*.{DENIED_ZONE}", addresses=(DENIED.address4, DENIED.address6))
