import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.netlink import NetlinkError, attribute, message, text, u32_net
from outgate.dataplane.nflog import LoggedPacket, parse_log

SOURCE4, TARGET4 = ip_address("10.213.0.2"), ip_address("45.45.46.1")
SOURCE6, TARGET6 = ip_address("fd00::2"), ip_address("2a0f::1")
PORTS = struct.pack(">HH", 40000, 443)


def datagram(payload: bytes, prefix: str = "denied") -> bytes:
    body = u32_net(4, 1007) + attribute(9, payload) + text(10, prefix)
    return message(4 << 8, 0, 0, bytes(4) + body)


def ipv4(protocol: int, rest: bytes, *, fragment: int = 0, words: int = 5) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, 20 + len(rest), 0, fragment, 64, protocol, 0)
    return head + SOURCE4.packed + TARGET4.packed + bytes(4 * (words - 5)) + rest


def ipv6(protocol: int, rest: bytes) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(rest), protocol, 64) + SOURCE6.packed + TARGET6.packed + rest


@pytest.mark.parametrize(
    ("packet", "protocol", "ports"),
    [
        (ipv4(6, PORTS), 6, (40000, 443)),
        (ipv4(17, PORTS), 17, (40000, 443)),
        (ipv4(6, PORTS, words=7), 6, (40000, 443)),
        (ipv4(1, b"\x08\0\0\0"), 1, (None, None)),
        (ipv4(6, PORTS, fragment=100), 6, (None, None)),
        (ipv4(6, b"\0"), 6, (None, None)),
        (ipv6(6, PORTS), 6, (40000, 443)),
        (ipv6(0, b"\x11\0" + bytes(6) + PORTS), 17, (40000, 443)),
        (ipv6(60, b"\x2c\x01" + bytes(14) + b"\x06\0\0\x01" + bytes(4) + PORTS), 6, (40000, 443)),
        (ipv6(44, b"\x06\0\0\x10" + bytes(4) + PORTS), 6, (None, None)),
        (ipv6(58, b"\x80\0\0\0"), 58, (None, None)),
    ],
)
def test_a_packet_is_cut_down_to_its_ends(packet: bytes, protocol: int, ports: tuple[int | None, int | None]) -> None:
    ends = (SOURCE4, TARGET4) if packet[0] >> 4 == 4 else (SOURCE6, TARGET6)
    assert parse_log(datagram(packet, "limit")) == [LoggedPacket(1007, "limit", *ends, protocol, *ports)]


@pytest.mark.parametrize("packet", [b"", b"\x45", bytes(60), ipv6(6, b"")[:39]])
def test_what_is_no_ip_packet_is_left_out(packet: bytes) -> None:
    assert parse_log(datagram(packet)) == []


@given(st.binary(max_size=120), st.binary(max_size=60))
def test_any_packet_and_any_datagram_are_survived(packet: bytes, data: bytes) -> None:
    parse_log(datagram(packet))
    parse_log(datagram(b"\x60" + packet))
    with contextlib.suppress(NetlinkError):
        parse_log(data)
