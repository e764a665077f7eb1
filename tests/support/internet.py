"""The little internet for tests: the demo's own, with hosts that more than one test needs."""

from outgate.cli.demo.control import WEB, Service, ServiceKind
from outgate.cli.demo.internet import Internet
from outgate.cli.demo.journal import Closing, Connection, Datagram, Journal, Packet, Query

__all__ = [
    "EVERYTHING",
    "WEB",
    "Closing",
    "Connection",
    "Datagram",
    "Internet",
    "Journal",
    "Packet",
    "Query",
    "Service",
    "ServiceKind",
]

EVERYTHING = (
    *WEB,
    Service(ServiceKind.ECHO, 7),
    Service(ServiceKind.SINK, 9),
    Service(ServiceKind.BANNER, 22),
    Service(ServiceKind.PUSH, 19),
    Service(ServiceKind.HTTP, 8443, tls=True),
    Service(ServiceKind.HTTP, 8080),
    Service(ServiceKind.UDP_ECHO, 7),
    Service(ServiceKind.UDP_SINK, 443),
)
"""One of each: web, echo (7), sink (9), server-first (22), push (19), TLS and HTTP on other ports, UDP 7 and 443."""
