"""What one says to the little internet's process over its unix socket: one JSON line each way."""

from enum import StrEnum

import msgspec

from outgate.cli.demo.journal import Journal

LINE_BYTES_MAX = 256 * 1024 * 1024
"""A full journal; both ends are ours, the bound only stops a runaway."""


class ServiceKind(StrEnum):
    """What a far-side server does."""

    HTTP = "http"
    """HTTP/1.1: ``/``, ``/bytes/N``, ``/endless?rate=``, ``/echo``, ``/headers``, WebSocket echo on ``/ws``."""
    ECHO = "echo"
    SINK = "sink"
    BANNER = "banner"
    """Speaks first, then echoes: SSH, SMTP and their like."""
    PUSH = "push"
    """Sends for ever without being asked."""
    UDP_ECHO = "udp_echo"
    UDP_SINK = "udp_sink"
    DNS = "dns"


class Service(msgspec.Struct, frozen=True):
    """One server on one port of a host, inside TLS (any name, certificates of the internet's own CA) when ``tls``."""

    kind: ServiceKind
    port: int
    tls: bool = False


WEB = (Service(ServiceKind.HTTP, 80), Service(ServiceKind.HTTP, 443, tls=True))


class AddHost(msgspec.Struct, frozen=True, tag="add_host"):
    """A machine with these addresses and services. Its name resolves to the addresses."""

    name: str
    addresses: tuple[str, ...]
    services: tuple[Service, ...]
    ttl_s: int


class SetRecords(msgspec.Struct, frozen=True, tag="set_records"):
    """What a name resolves to, instead of what it did. Nothing at all makes it NXDOMAIN.

    ``name`` may begin with ``*.``. ``raw`` holds (type, rdata as hex) pairs for other record types.
    """

    name: str
    addresses: tuple[str, ...] = ()
    cname: str | None = None
    raw: tuple[tuple[int, str], ...] = ()
    ttl_s: int = 60


class ReadJournal(msgspec.Struct, frozen=True, tag="read_journal"):
    """The journal since ``since_s``, for ``address`` and ``host`` where given."""

    since_s: float = 0.0
    address: str | None = None
    host: str | None = None


class CloseConnections(msgspec.Struct, frozen=True, tag="close_connections"):
    """The far side ends every open connection of ``host``."""

    host: str


Request = AddHost | SetRecords | ReadJournal | CloseConnections


class Reply(msgspec.Struct, frozen=True):
    """The answer to any request; ``error`` is empty when it was carried out."""

    error: str = ""
    journal: Journal | None = None
