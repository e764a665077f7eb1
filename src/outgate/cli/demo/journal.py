"""What reached the far side: the only witness that the demo and the tests believe.

Times are seconds of the machine's monotonic clock, which all processes share, so that they can be compared
with times taken by the caller.
"""

from enum import StrEnum

import msgspec

RECORDS_MAX = 200_000
"""Of each kind; a run of all tests makes a tenth of it. What comes after is counted in ``Journal.dropped``."""


class Closing(StrEnum):
    """How a connection ended, as the far side saw it."""

    OPEN = "open"
    ENDED = "ended"
    RESET = "reset"


class Connection(msgspec.Struct):
    """One accepted TCP connection. ``bytes_in`` counts what the server read, TLS records included."""

    number: int
    opened_s: float
    source: str
    source_port: int
    address: str
    port: int
    host: str
    service: str
    server_name: str | None = None
    """The SNI, once a complete ClientHello arrived; an empty text is a hello without one."""
    requests: list[str] = msgspec.field(default_factory=list)
    """``METHOD http://Host/target`` of each HTTP request, Host as received."""
    kept: bytes = b""
    """What came, as it came: by a tape alone."""
    bytes_in: int = 0
    bytes_out: int = 0
    last_in_s: float = 0.0
    closing: Closing = Closing.OPEN
    closed_s: float | None = None


class Query(msgspec.Struct, frozen=True):
    """One DNS message. ``server`` is the address it was sent to; ``name`` is empty when it is not one question."""

    time_s: float
    source: str
    server: str
    transport: str
    name: str
    type: int
    message: bytes = b""
    """As it came."""


class Datagram(msgspec.Struct, frozen=True):
    """One UDP datagram that a service (not the DNS server) received."""

    time_s: float
    source: str
    address: str
    port: int
    size: int


class Packet(msgspec.Struct):
    """Packets of one kind that came over the wire, whether or not anything listens there.

    Of TCP only connection attempts (SYN without ACK) are seen; of everything else every packet.
    """

    protocol: int
    source: str
    address: str
    port: int
    count: int
    first_s: float
    last_s: float


class Journal(msgspec.Struct):
    """Everything that reached the far side, oldest first."""

    connections: list[Connection] = msgspec.field(default_factory=list)
    queries: list[Query] = msgspec.field(default_factory=list)
    datagrams: list[Datagram] = msgspec.field(default_factory=list)
    packets: list[Packet] = msgspec.field(default_factory=list)
    dropped: int = 0

    def reached(self, address: str, port: int | None = None) -> bool:
        """Whether any packet, connection or datagram for ``address`` (and ``port``) came in."""
        seen = [(entry.address, entry.port) for entry in self.connections]
        seen += [(entry.address, entry.port) for entry in self.datagrams]
        seen += [(entry.address, entry.port) for entry in self.packets]
        return any(address == at and port in (None, to) for at, to in seen)


def select(journal: Journal, *, since_s: float, address: str | None, host: str | None) -> Journal:
    """The part of ``journal`` that began at or after ``since_s``, for ``address`` and ``host`` where given.

    Queries have neither address nor host of a service; they are selected by ``since_s`` alone.
    """

    def wanted(entry_address: str, entry_host: str | None) -> bool:
        return address in (None, entry_address) and (host is None or host == entry_host)

    return Journal(
        connections=[c for c in journal.connections if c.opened_s >= since_s and wanted(c.address, c.host)],
        queries=[q for q in journal.queries if q.time_s >= since_s],
        datagrams=[d for d in journal.datagrams if d.time_s >= since_s and wanted(d.address, host)],
        packets=[p for p in journal.packets if p.last_s >= since_s and wanted(p.address, host)],
        dropped=journal.dropped,
    )
