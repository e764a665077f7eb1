"""A packet socket on the far end of the wire: sees what came, whether or not anybody listens."""

import ctypes
import socket
import struct
from ipaddress import IPv6Address

from outgate.cli.demo.journal import RECORDS_MAX, Packet

_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_PACKET_OUTGOING = 4
_TCP, _UDP, _ICMPV6 = 6, 17, 58
_ND_TYPES = range(133, 138)
"""Neighbour discovery is between the two ends of the wire and says nothing about a devbox (RFC 4861)."""

_MLD_ADDRESS = "ff02::16"
"""Multicast listener reports (RFC 3810 §5.2.14) come with every IPv6 interface, for the same reason."""

# Classic BPF over the network header: of TCP only SYN without ACK, everything else whole. Bulk traffic would
# otherwise spend the test machine's CPU here.
_PROGRAM: tuple[tuple[int, int, int, int], ...] = (
    (0x30, 0, 0, 0),  # 0  ldb [0]
    (0x54, 0, 0, 0xF0),  # 1  and #0xf0
    (0x15, 0, 5, 0x40),  # 2  IPv4? else 8
    (0x30, 0, 0, 9),  # 3  ldb [9]: protocol
    (0x15, 0, 10, _TCP),  # 4  TCP? else accept (15)
    (0xB1, 0, 0, 0),  # 5  ldxb 4*([0]&0xf)
    (0x50, 0, 0, 13),  # 6  ldb [x+13]: flags
    (0x05, 0, 0, 4),  # 7  ja 12
    (0x15, 0, 5, 0x60),  # 8  IPv6? else drop (14)
    (0x30, 0, 0, 6),  # 9  ldb [6]: next header
    (0x15, 0, 4, _TCP),  # 10 TCP? else accept (15)
    (0x30, 0, 0, 53),  # 11 ldb [40+13]: flags
    (0x54, 0, 0, 0x12),  # 12 and SYN|ACK
    (0x15, 1, 0, 0x02),  # 13 SYN alone: 15, else 14
    (0x06, 0, 0, 0),  # 14 drop
    (0x06, 0, 0, 128),  # 15 accept, headers only
)


class Tap:
    """Counts packets by protocol, source, destination and destination port. Bound to the calling thread's namespace."""

    def __init__(self, interface: str) -> None:
        """Listen on ``interface``. Raises OSError without CAP_NET_RAW."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        code = b"".join(struct.pack("HBBI", *row) for row in _PROGRAM)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("HP", len(_PROGRAM), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.bind((interface, _ETH_P_ALL))
        self._seen: dict[tuple[int, str, str, int], Packet] = {}
        self.dropped = 0

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def drain(self, now_s: float) -> None:
        """Count everything that is waiting."""
        while True:
            try:
                packet, where = self._socket.recvfrom(256)
            except BlockingIOError:
                return
            if where[2] != _PACKET_OUTGOING:
                self._count(packet, now_s)

    def packets(self) -> list[Packet]:
        """What was counted so far."""
        return list(self._seen.values())

    def _count(self, packet: bytes, now_s: float) -> None:
        key = _parse(packet)
        if key is None:
            return
        known = self._seen.get(key)
        if known is not None:
            known.count += 1
            known.last_s = now_s
        elif len(self._seen) < RECORDS_MAX:
            self._seen[key] = Packet(*key, count=1, first_s=now_s, last_s=now_s)
        else:
            self.dropped += 1


def _parse(packet: bytes) -> tuple[int, str, str, int] | None:
    """(protocol, source, destination, destination port) of an IP packet; None for what is of no interest."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        protocol, offset = packet[9], 4 * (packet[0] & 0xF)
        source, address = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        protocol, offset = packet[6], 40
        source, address = str(IPv6Address(packet[8:24])), str(IPv6Address(packet[24:40]))
        if protocol == _ICMPV6 and len(packet) > offset and packet[offset] in _ND_TYPES:
            return None
    else:
        return None
    if address == _MLD_ADDRESS:
        return None
    port = 0
    if protocol in (_TCP, _UDP) and len(packet) >= offset + 4:
        (port,) = struct.unpack_from("!H", packet, offset + 2)
    return protocol, source, address, port
