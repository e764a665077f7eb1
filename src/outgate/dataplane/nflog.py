"""Denied packets as the kernel logs them (nfnetlink_log), cut down to who, where and which protocol.

What comes in here was written by devboxes: the parser is total, and the kernel's buffer is the queue. When it
overflows, the number of losses is unknown, and each overflow counts as one.
"""

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from outgate.dataplane.netlink import (
    NETLINK_NETFILTER,
    Message,
    NetlinkError,
    NetlinkSocket,
    attribute,
    parse_attributes,
    parse_messages,
    u32_net,
)
from outgate.model.addresses import IPAddress

_SUBSYSTEM: Final = 4 << 8
_MSG_PACKET, _MSG_CONFIG = 0, 1
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_QTHRESH = 1, 2, 4, 5
_CMD_BIND: Final = 1
_COPY_PACKET: Final = 2
_COPY_BYTES: Final = 96
"""An IPv6 header, some extension headers, and the ports."""
_FLUSH_AFTER_10MS: Final = 10
_FLUSH_AT_PACKETS: Final = 32
_NFULA_INDEV, _NFULA_PAYLOAD, _NFULA_PREFIX = 4, 9, 10
_READS_MAX: Final = 64
"""Datagrams per call of ``read``, so that a flood of denials does not hold up its reader."""

_WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})
"""TCP, UDP, DCCP, SCTP, UDP-Lite: ports are the first four bytes of the header."""
_EXTENSION_HEADERS: Final = frozenset({0, 43, 60, 135})
"""Hop-by-hop, routing, destination options, mobility (RFC 8200 §4): length in units of 8 bytes behind the first."""
_FRAGMENT: Final = 44
_EXTENSIONS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """One logged packet. Ports are None for protocols without, and where the packet was cut short."""

    link_index: int
    prefix: str
    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None
    destination_port: int | None


class NflogReader:
    """Listener on a log group of the network namespace the thread is in when it is made. One per group."""

    def __init__(self, group: int) -> None:
        self.lost = 0
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        try:
            for attributes in (
                attribute(_CFG_CMD, bytes((_CMD_BIND,))),
                attribute(_CFG_MODE, struct.pack(">IBx", _COPY_BYTES, _COPY_PACKET)),
                u32_net(_CFG_TIMEOUT, _FLUSH_AFTER_10MS) + u32_net(_CFG_QTHRESH, _FLUSH_AT_PACKETS),
            ):
                payload = struct.pack(">BBH", socket.AF_UNSPEC, 0, group) + attributes
                self._socket.request(_SUBSYSTEM | _MSG_CONFIG, 0, payload, doing=f"listening on log group {group}")
        except NetlinkError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when packets were logged."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def read(self) -> tuple[LoggedPacket, ...]:
        """What was logged since the last call, as far as one call takes it. Never blocks."""
        packets: list[LoggedPacket] = []
        for _ in range(_READS_MAX):
            try:
                data = self._socket.receive_waiting()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1
                continue
            if data is None:
                break
            packets += parse_log(data)
        return tuple(packets)


def parse_log(data: bytes) -> list[LoggedPacket]:
    """The packets in one datagram of the kernel; what is no IP packet is left out. Raises NetlinkError."""
    packets = (_parse_message(message) for message in parse_messages(data) if message.type == _SUBSYSTEM | _MSG_PACKET)
    return [packet for packet in packets if packet is not None]


def _parse_message(message: Message) -> LoggedPacket | None:
    parts = parse_attributes(message.payload[4:])
    packet = parts.get(_NFULA_PAYLOAD, b"")
    headers = _parse_ipv4(packet) if packet[:1] and packet[0] >> 4 == 4 else _parse_ipv6(packet)
    if headers is None:
        return None
    source, destination, protocol, rest = headers
    has_ports = protocol in _WITH_PORTS and len(rest) >= 4
    ports = struct.unpack_from(">HH", rest) if has_ports else (None, None)
    prefix = parts.get(_NFULA_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
    index = int.from_bytes(parts.get(_NFULA_INDEV, b""), "big")
    return LoggedPacket(index, prefix, source, destination, protocol, *ports)


def _parse_ipv4(packet: bytes) -> tuple[IPAddress, IPAddress, int, bytes] | None:
    if len(packet) < 20:
        return None
    header_bytes = (packet[0] & 0x0F) * 4
    offset = int.from_bytes(packet[6:8], "big") & 0x1FFF
    rest = b"" if offset else packet[max(header_bytes, 20) :]
    return ip_address(packet[12:16]), ip_address(packet[16:20]), packet[9], rest


def _parse_ipv6(packet: bytes) -> tuple[IPAddress, IPAddress, int, bytes] | None:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    protocol, rest = packet[6], packet[40:]
    for _ in range(_EXTENSIONS_MAX):
        if protocol in _EXTENSION_HEADERS and len(rest) >= 2:
            protocol, rest = rest[0], rest[8 + rest[1] * 8 :]
        elif protocol == _FRAGMENT and len(rest) >= 8:
            is_first = int.from_bytes(rest[2:4], "big") & 0xFFF8 == 0
            protocol, rest = rest[0], rest[8:] if is_first else b""
        else:
            break
    return ip_address(packet[8:24]), ip_address(packet[24:40]), protocol, rest
