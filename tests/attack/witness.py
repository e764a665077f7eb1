"""A packet socket in a namespace: sees whole packets, payload and all, where the journal counts them only."""

import secrets
import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from outgate import clock
from outgate.dataplane.netns import entered

_ETH_P_ALL = 0x0003
_FENCE_S_MAX = 20.0


def new_token() -> str:
    """Ten bytes that no other packet carries."""
    return f"og{secrets.token_hex(4)}"


@dataclass(slots=True)
class Witness:
    """What came into a namespace since the watch began, as IP packets. Loopback is not watched."""

    _socket: socket.socket
    seen: list[bytes] = field(default_factory=list)

    def await_token(self, token: str) -> bool:
        """Look until a packet with ``token`` came, for packets do not overtake each other; whether it did."""
        wanted = token.encode()
        deadline_s = clock.monotonic_s() + _FENCE_S_MAX
        while (left_s := deadline_s - clock.monotonic_s()) > 0:
            if any(wanted in packet for packet in self.look()):
                return True
            select.select([self._socket], [], [], left_s)
        return False

    def look(self) -> list[bytes]:
        """What came since the last look; all of it is in ``seen``."""
        found: list[bytes] = []
        while True:
            try:
                packet, (interface, _, kind, _, _) = self._socket.recvfrom(65536)
            except BlockingIOError:
                self.seen += found
                return found
            if kind != socket.PACKET_OUTGOING and interface != "lo":
                found.append(packet)

    def told(self, *tokens: str, to: Iterable[str] = ()) -> Iterator[str]:
        """In words, each packet that carries one of ``tokens`` or is for one of the addresses ``to``."""
        wanted, addresses = [token.encode() for token in tokens], {ip_address(text) for text in to}
        for packet in (*self.seen, *self.look()):
            ends = ends_of(packet)
            if (ends is not None and ends[1] in addresses) or any(token in packet for token in wanted):
                between = "" if ends is None else f" from {ends[0]} to {ends[1]}"
                yield f"a packet{between}: {packet[:80].hex()}"


def ends_of(packet: bytes) -> tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address] | None:
    """Source and destination of an IP packet; None for what is none."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    return None


@contextmanager
def watching(namespace: str | int) -> Iterator[Witness]:
    """See what comes into ``namespace`` (a name, or an open descriptor) while the body runs."""
    with entered(namespace):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        yield Witness(raw)
    finally:
        raw.close()
