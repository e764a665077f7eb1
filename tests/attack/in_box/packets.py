"""Runs where raw sockets are given (standard library only): packets made by hand, right ones and wrong ones.

Whatever a caller does not ask to be wrong is right: lengths, checksums and the hardware addresses of the link.
"""

import errno
import itertools
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
TCP, UDP, ICMP, ICMP6, FRAGMENT = 6, 17, 1, 58, 44
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
_ETH_P_ALL = 3
_NAME_SERVER = "45.45.45.53"
Found = TypeVar("Found")
_ports = itertools.count(20_000 + time.monotonic_ns() // 1000 % 20_000)


def new_port() -> int:
    """A source port that no other packet of this program has, and hardly one of another program."""
    return next(_ports)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    ends = ip_address(source).packed + ip_address(destination).packed
    return ends + (struct.pack("!BBH", 0, protocol, length) if len(ends) == 8 else struct.pack("!II", length, protocol))


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    options: bytes = b"",
    ttl: int = 64,
    number: int = 0x4F47,
    fragment: int = 0,
    check: int | None = None,
    length: int | None = None,
    first: int | None = None,
) -> bytes:
    """An IPv4 packet. ``fragment``: flags and offset as one field; ``first``: version and header length."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4
    total = 4 * words + len(payload) if length is None else length
    head = struct.pack("!BBHHHBB", 0x40 | words if first is None else first, 0, total, number, fragment, ttl, protocol)
    ends = ip_address(source).packed + ip_address(destination).packed
    found = checksum(head + b"\0\0" + ends + options) if check is None else check
    return head + struct.pack("!H", found) + ends + options + payload


def ipv6(
    source: str, destination: str, protocol: int, payload: bytes, *, hops: int = 64, length: int | None = None
) -> bytes:
    """An IPv6 packet; ``protocol`` is the next header."""
    size = len(payload) if length is None else length
    ends = ip_address(source).packed + ip_address(destination).packed
    return struct.pack("!IHBB", 6 << 28, size, protocol, hops) + ends + payload


def ip(source: str, destination: str, protocol: int, payload: bytes, *, ttl: int = 64) -> bytes:
    """A packet of whatever family ``destination`` is of."""
    if ":" in destination:
        return ipv6(source, destination, protocol, payload, hops=ttl)
    return ipv4(source, destination, protocol, payload, ttl=ttl)


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    flags: int,
    payload: bytes = b"",
    *,
    seq: int = 1000,
    ack: int = 0,
    options: bytes = b"",
    urgent: int = 0,
    check: int | None = None,
) -> bytes:
    """A TCP segment, without its IP header."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4
    head = struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, words << 4, flags, 64240, 0, urgent)
    whole = head + options + payload
    found = checksum(_pseudo(source, destination, TCP, len(whole)) + whole) if check is None else check
    return whole[:16] + struct.pack("!H", found) + whole[18:]


def udp_datagram(
    source: str, destination: str, ports: tuple[int, int], payload: bytes, *, check: int | None = None
) -> bytes:
    """A UDP datagram, without its IP header."""
    head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    found = checksum(_pseudo(source, destination, UDP, 8 + len(payload)) + head + payload) if check is None else check
    return head[:6] + struct.pack("!H", found) + payload


def icmp(kind: int, code: int, rest: bytes, payload: bytes) -> bytes:
    """An ICMP message; ``rest`` are the four bytes behind the checksum."""
    return (
        struct.pack("!BBH", kind, code, checksum(struct.pack("!BBH", kind, code, 0) + rest + payload)) + rest + payload
    )


def icmp6(source: str, destination: str, kind: int, rest: bytes, payload: bytes = b"", *, code: int = 0) -> bytes:
    """Likewise for IPv6, whose checksum covers the addresses."""
    bare = struct.pack("!BBH", kind, code, 0) + rest + payload
    found = checksum(_pseudo(source, destination, ICMP6, len(bare)) + bare)
    return bare[:2] + struct.pack("!H", found) + bare[4:]


def fragments4(
    source: str, destination: str, protocol: int, pieces: list[tuple[int, bytes]], *, more: bool = False, number: int
) -> list[bytes]:
    """One packet for each (offset in bytes, data); the last one ends the packet unless ``more``."""
    last = len(pieces) - 1
    return [
        ipv4(source, destination, protocol, data, number=number, fragment=offset // 8 | (more or i < last) << 13)
        for i, (offset, data) in enumerate(pieces)
    ]


def fragments6(
    source: str, destination: str, protocol: int, pieces: list[tuple[int, bytes]], *, more: bool = False, number: int
) -> list[bytes]:
    """Likewise for IPv6."""
    last = len(pieces) - 1
    return [
        ipv6(
            source,
            destination,
            FRAGMENT,
            struct.pack("!BBHI", protocol, 0, offset | (more or i < last), number) + data,
        )
        for i, (offset, data) in enumerate(pieces)
    ]


class Ends:
    """The box's own addresses, which are asked for without any rights."""

    def __init__(self) -> None:
        """By the routes that a flow would take."""
        self.address4 = _own_address(_NAME_SERVER)
        self.address6 = _own_address("2a0f:4444::53")

    def own(self, destination: str) -> str:
        """The one of the family of ``destination``."""
        return self.address6 if ":" in destination else self.address4


class Wire(Ends):
    """The box's link, to be written to and read from below everything that the kernel has to say."""

    def __init__(self) -> None:
        """Open it; the router answers for everything."""
        super().__init__()
        self.interface, gateway = _default_route()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        self._socket.bind((self.interface, _ETH_P_ALL))
        self.mac: bytes = self._socket.getsockname()[4]
        self.gateway = gateway
        self.router_mac = _neighbour(gateway)

    def send(
        self, packet: bytes, *, to: bytes | None = None, mac: bytes | None = None, kind: int | None = None
    ) -> None:
        """Put an IP packet into a frame of ``kind`` to the router (or ``to``) from the box's own ``mac``."""
        found = (IPV6 if packet[:1] and packet[0] >> 4 == 6 else IPV4) if kind is None else kind
        self.frame((to or self.router_mac) + (mac or self.mac) + struct.pack("!H", found) + packet)

    def mark(self, mark: int) -> None:
        """Everything that is sent from now on carries ``mark``, as far as a mark is carried, and a priority."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, mark & 7)

    def frame(self, frame: bytes) -> None:
        """Put a whole frame on the wire; one that the device refuses is not there."""
        try:
            self._socket.send(frame)
        except OSError as error:
            # Over the device's MTU: what cannot be put on a wire attacks nobody.
            if error.errno != errno.EMSGSIZE:
                raise

    def receive(self, wanted: Callable[[bytes], Found | None], wait_s: float = 3.0) -> Found | None:
        """The first thing that ``wanted`` makes of a packet that came (without its frame), None after ``wait_s``."""
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                frame, where = self._socket.recvfrom(65536)
            except TimeoutError:
                return None
            if where[2] != socket.PACKET_OUTGOING and (found := wanted(frame[14:])) is not None:
                return found
        return None

    def segment(self, destination: str, port: int, flags: int, payload: bytes = b"", **how: Any) -> None:
        """A segment out of the blue from a new port."""
        source = self.own(destination)
        made = tcp(source, destination, (new_port(), port), flags, payload, **how)
        self.send(ip(source, destination, TCP, made))

    def datagram(self, destination: str, port: int, payload: bytes, source_port: int | None = None) -> None:
        """A datagram, right in every way."""
        source = self.own(destination)
        made = udp_datagram(source, destination, (source_port or new_port(), port), payload)
        self.send(ip(source, destination, UDP, made))


class Taken:
    """A connection that the kernel opened and whose segments are made by hand from then on.

    The kernel knows nothing of what is sent for it, and ignores acknowledgements of it.
    """

    def __init__(self, wire: Wire, address: str, port: int) -> None:
        """Raises OSError when nobody answers."""
        self.wire = wire
        self._flow = socket.create_connection((address, port), 3)
        self.ports = (self._flow.getsockname()[1], port)
        self.ends = (self._flow.getsockname()[0], address)
        found = wire.receive(self._numbers_of_syn_ack)
        if found is None:
            raise OSError("no SYN/ACK was seen")
        self.seq, self.ack = found

    def send(self, offset: int, data: bytes, flags: int = PSH | ACK, *, ttl: int = 64, **how: Any) -> None:
        """``data`` as the bytes from ``offset`` on of what the box has to say."""
        made = tcp(*self.ends, self.ports, flags, data, seq=self.seq + offset, ack=self.ack, **how)
        self.wire.send(ip(*self.ends, TCP, made, ttl=ttl))

    def end(self, offset: int) -> None:
        """Reset the connection, of which ``offset`` bytes were said."""
        self.send(offset, b"", RST | ACK)

    def receive(self, wait_s: float = 3.0) -> tuple[int, bytes]:
        """Flags and data of the next segment of the other end that says or ends something; (0, b"") if none comes."""
        return self.wire.receive(self._said, wait_s) or (0, b"")

    def _numbers_of_syn_ack(self, packet: bytes) -> tuple[int, int] | None:
        segment = self._segment(packet)
        if segment is None or segment[13] & (SYN | ACK) != SYN | ACK:
            return None
        seq, ack = struct.unpack_from("!II", segment, 4)
        return ack, seq + 1

    def _said(self, packet: bytes) -> tuple[int, bytes] | None:
        segment = self._segment(packet)
        if segment is None:
            return None
        data = segment[4 * (segment[12] >> 4) :]
        return (segment[13], data) if data or segment[13] & (FIN | RST) else None

    def _segment(self, packet: bytes) -> bytes | None:
        """The segment inside ``packet`` if it is one of the other end's for this connection."""
        if packet[0] >> 4 == 6:
            segment, end = packet[40 : 40 + struct.unpack_from("!H", packet, 4)[0]], packet[8:24]
            protocol = packet[6]
        else:
            segment, end = packet[4 * (packet[0] & 15) : struct.unpack_from("!H", packet, 2)[0]], packet[12:16]
            protocol = packet[9]
        if protocol != TCP or end != ip_address(self.ends[1]).packed:
            return None
        return segment if struct.unpack_from("!HH", segment) == (self.ports[1], self.ports[0]) else None


def resolve(name: str) -> None:
    """Ask for both kinds of address, as a program would before it connects; what a filter learns from it, it has learnt."""
    encoded = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        asking.connect((_NAME_SERVER, 53))
        for kind in (1, 28):
            asking.send(struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + encoded + struct.pack("!2H", kind, 1))
            asking.recv(4096)


def _default_route() -> tuple[str, str]:
    with Path("/proc/self/net/route").open(encoding="ascii") as routes:
        for line in routes:
            interface, destination, gateway, *_ = line.split()
            if destination == "00000000":
                return interface, socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
    raise OSError("there is no default route")


def _neighbour(address: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _ in range(50):
            with Path("/proc/self/net/arp").open(encoding="ascii") as neighbours:
                for line in neighbours:
                    fields = line.split()
                    if fields[0] == address and fields[3] != "00:00:00:00:00:00":
                        return bytes.fromhex(fields[3].replace(":", ""))
            asking.sendto(b"", (address, 9))
            time.sleep(0.05)
    raise OSError(f"{address} has no hardware address")


def _own_address(destination: str) -> str:
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as flow:
        flow.connect((destination, 53))
        return str(flow.getsockname()[0])
