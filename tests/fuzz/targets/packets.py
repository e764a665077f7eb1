"""Denied packets, as the kernel logs what a devbox sent."""

from ipaddress import IPv4Address, IPv6Address

from outgate.dataplane.netlink import NetlinkError, attribute, message, text, u32_net
from outgate.dataplane.nflog import parse_log

_PACKET_MESSAGE = 4 << 8
_LINK, _PAYLOAD, _PREFIX = 4, 9, 10


def read_packet(data: bytes) -> None:
    """The kernel's frame around any packet: it never keeps others' packets from being read."""
    body = u32_net(_LINK, 7) + attribute(_PAYLOAD, data) + text(_PREFIX, "denied")
    logged = message(_PACKET_MESSAGE, 0, 0, bytes(4) + body)
    packets = parse_log(logged)
    assert parse_log(logged + logged) == packets * 2
    version = data[0] >> 4 if data else 0
    if version not in (4, 6) or len(data) < (20 if version == 4 else 40):
        assert packets == []
        return
    (packet,) = packets
    assert (packet.link_index, packet.prefix) == (7, "denied")
    if version == 4:
        assert (packet.source, packet.destination) == (IPv4Address(data[12:16]), IPv4Address(data[16:20]))
        assert packet.protocol == data[9]
    else:
        assert (packet.source, packet.destination) == (IPv6Address(data[8:24]), IPv6Address(data[24:40]))
    assert (packet.source_port is None) is (packet.destination_port is None)
    if packet.source_port is not None:
        assert packet.source_port.to_bytes(2, "big") in data, "a port that the packet does not hold"


def read_datagram(data: bytes) -> None:
    try:
        packets = parse_log(data)
    except NetlinkError:
        return
    assert len(packets) <= len(data) // 40
