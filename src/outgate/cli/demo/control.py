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
    TAPE = "tape"
    """Keeps what comes, byte for byte, and answers whatever it is."""
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


class Section(StrEnum):
    """Of a DNS message (RFC 1035 §4.1)."""

    ANSWER = "answer"
    AUTHORITY = "authority"
    ADDITIONAL = "additional"


class ForeignRecord(msgspec.Struct, frozen=True):
    """A record that nobody asked for: of any owner, in any section."""

    section: Section
    owner: str
    type: int
    data_hex: str


class Lie(StrEnum):
    """How a forged answer, which comes before the true one, differs from what was asked."""

    WRONG_ID = "wrong_id"
    WRONG_QUESTION = "wrong_question"
    NO_ANSWER_FLAG = "no_answer_flag"
    OTHER_PORT = "other_port"
    """Everything is right in it, but it comes from another port of the server."""
    OTHER_SERVER = "other_server"
    """Everything is right in it, but another server sends it."""


class SetRecords(msgspec.Struct, frozen=True, tag="set_records"):
    """What a name resolves to, instead of what it did. Nothing at all makes it NXDOMAIN.

    ``name`` may begin with ``*.``. ``raw`` holds (type, rdata as hex) pairs for other record types. ``foreign`` goes
    along with every answer. ``lies`` are sent first, by UDP, and give ``lie_address``; answers by UDP wait ``delay_s``.
    """

    name: str
    addresses: tuple[str, ...] = ()
    cname: str | None = None
    raw: tuple[tuple[int, str], ...] = ()
    ttl_s: int = 60
    foreign: tuple[ForeignRecord, ...] = ()
    lies: tuple[Lie, ...] = ()
    lie_address: str = ""
    delay_s: float = 0.0


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
