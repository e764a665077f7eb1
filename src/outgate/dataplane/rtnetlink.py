"""Messages of rtnetlink: links, addresses, routes, neighbours and rules. Builders and parsers, no socket.

Interface indexes are always given by the caller, so that nothing has to be looked up by a dump.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from outgate.dataplane.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    attribute,
    list_attributes,
    nest,
    parse_attributes,
    text,
    u32_host,
)
from outgate.model.addresses import IPAddress

NETLINK_ROUTE: Final = 0

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

_AF_UNSPEC, _AF_INET, _AF_INET6 = 0, 2, 10
_IFF_UP: Final = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 1, 3, 4, 18, 20, 28
_IFLA_GROUP, _IFLA_EXT_MASK = 27, 29
_DOOMED: Final = 0x6F67
"""A link group of the router namespace."""
_RTEXT_FILTER_SKIP_STATS: Final = 1 << 3
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD: Final = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 6, 9, 15
_RT_TABLE_COMPAT, RT_TABLE_MAIN, RT_TABLE_LOCAL = 252, 254, 255
_RTPROT_KERNEL, _RTPROT_STATIC = 2, 4
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_HOST = 0, 253, 254
RTN_UNICAST, RTN_LOCAL, RTN_UNREACHABLE = 1, 2, 7
_RTNH_F_ONLINK: Final = 4
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT: Final = 0x80
_FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK = 3, 6, 10, 15, 16
_FR_ACT_TO_TBL: Final = 1

_IFINFO: Final = struct.Struct("=BxHiII")
_IFADDR: Final = struct.Struct("=BBBBi")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_NDMSG: Final = struct.Struct("=BxxxiHBB")
_NEXT_HOP: Final = struct.Struct("=HBBi")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Request:
    """One rtnetlink request; ``doing`` says what it is for, in an error."""

    kind: int
    flags: int
    payload: bytes
    doing: str


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a veth pair."""

    name: str
    index: int
    hardware_address: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A link as observed. ``alias`` is the text that was attached to it, empty without."""

    index: int
    name: str
    alias: str
    mtu: int
    is_up: bool


@dataclass(frozen=True, slots=True)
class Route:
    """A route as observed. A route over several hops appears once for each; ``gateway`` None: on the link.

    The destination is kept as the kernel wrote it (empty for a default route): there may be thousands.
    """

    family: int
    packed: bytes
    prefix_length: int
    table: int
    kind: int
    link_index: int | None
    gateway: IPAddress | None
    priority: int
    is_kernels: bool = False
    """Whether the kernel made it by itself, for an address."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self.family == _AF_INET else 6

    @property
    def destination(self) -> Network:
        """The network that it leads to."""
        packed = self.packed or bytes(4 if self.family == _AF_INET else 16)
        return ip_network((packed, self.prefix_length), strict=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule as observed, as far as it can be one of ours."""

    family: int
    priority: int
    mark: int
    mask: int
    table: int
    link: str = ""
    """The incoming link that it is about; ``lo`` stands for packets of the namespace itself."""


def _family(address: IPAddress | Network) -> int:
    return _AF_INET if address.version == 4 else _AF_INET6


def add_veth(near: LinkEnd, far: LinkEnd, far_namespace: int, mtu: int) -> Request:
    """Make a veth pair in one step: ``near`` here and up, ``far`` in the namespace of that descriptor and down.

    (The kernel does not raise the far end before the two know each other: ENOTCONN. It takes the index of the
    far end only if it is given one for the near end, and 0 there means any.)
    """
    peer = _ifinfo(far.index, 0) + _link_names(far, mtu) + u32_host(_IFLA_NET_NS_FD, far_namespace)
    info = nest(_IFLA_LINKINFO, text(_INFO_KIND, "veth"), nest(_INFO_DATA, attribute(_VETH_INFO_PEER, peer)))
    payload = _ifinfo(near.index) + _link_names(near, mtu) + info
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload, f"making the link {near.name}")


def _ifinfo(index: int, flags: int = _IFF_UP) -> bytes:
    return _IFINFO.pack(_AF_UNSPEC, 0, index, flags, flags)


def _link_names(end: LinkEnd, mtu: int) -> bytes:
    return text(_IFLA_IFNAME, end.name) + attribute(_IFLA_ADDRESS, end.hardware_address) + u32_host(_IFLA_MTU, mtu)


def raise_link(index: int) -> Request:
    """Set a link up."""
    return Request(RTM_NEWLINK, 0, _ifinfo(index), f"raising link {index}")


def name_link(index: int, alias: str) -> Request:
    """Attach a text to a link (an empty one takes it away)."""
    return Request(RTM_NEWLINK, 0, _ifinfo(index, 0) + attribute(_IFLA_IFALIAS, alias.encode()), f"naming link {index}")


def remove_link(name: str) -> Request:
    """Remove a link; of a veth pair both ends go. ENODEV when there is none."""
    return Request(RTM_DELLINK, 0, _ifinfo(0, 0) + text(_IFLA_IFNAME, name), f"removing the link {name}")


def doom_link(name: str) -> Request:
    """Put a link into the group that :func:`remove_doomed_links` removes. ENODEV when there is none."""
    return Request(
        RTM_NEWLINK, 0, _ifinfo(0, 0) + text(_IFLA_IFNAME, name) + u32_host(_IFLA_GROUP, _DOOMED), f"dooming {name}"
    )


def remove_doomed_links() -> Request:
    """Remove every doomed link at once: one by one, each would wait for all processors. ENODEV when there is none."""
    return Request(RTM_DELLINK, 0, _ifinfo(0, 0) + u32_host(_IFLA_GROUP, _DOOMED), "removing links")


def set_address(index: int, address: IPAddress, prefix_length: int | None = None) -> Request:
    """Give a link an address (a host address without ``prefix_length``), usable at once."""
    length = address.max_prefixlen if prefix_length is None else prefix_length
    scope = _RT_SCOPE_LINK if address.is_link_local else _RT_SCOPE_UNIVERSE
    payload = _IFADDR.pack(_family(address), length, _IFA_F_NODAD, scope, index)
    payload += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    payload += u32_host(_IFA_FLAGS, _IFA_F_NODAD)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, payload, f"giving {address} to link {index}")


def set_route(
    destination: Network,
    *,
    link_index: int | None = None,
    gateway: IPAddress | None = None,
    table: int = RT_TABLE_MAIN,
    kind: int = RTN_UNICAST,
) -> Request:
    """Set a route; one through a ``gateway`` takes it as reachable on the link without asking."""
    scope = _RT_SCOPE_UNIVERSE
    if destination.version == 4 and gateway is None:
        scope = {RTN_UNICAST: _RT_SCOPE_LINK, RTN_LOCAL: _RT_SCOPE_HOST}.get(kind, _RT_SCOPE_UNIVERSE)
    flags = 0 if gateway is None else _RTNH_F_ONLINK
    compact_table = table if table < 256 else _RT_TABLE_COMPAT
    payload = _RTMSG.pack(
        _family(destination), destination.prefixlen, 0, 0, compact_table, _RTPROT_STATIC, scope, kind, flags
    )
    payload += u32_host(_RTA_TABLE, table)
    if destination.prefixlen:
        payload += attribute(_RTA_DST, destination.network_address.packed)
    if gateway is not None:
        payload += attribute(_RTA_GATEWAY, gateway.packed)
    if link_index is not None:
        payload += u32_host(_RTA_OIF, link_index)
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, payload, f"setting the route to {destination}")


def set_neighbour(index: int, address: IPAddress, hardware_address: bytes) -> Request:
    """Fix the hardware address of a neighbour for good."""
    payload = _NDMSG.pack(_family(address), index, _NUD_PERMANENT, 0, 0)
    payload += attribute(_NDA_DST, address.packed) + attribute(_NDA_LLADDR, hardware_address)
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, payload, f"fixing the neighbour {address}")


def add_mark_rule(family: int, priority: int, mark: int, table: int) -> Request:
    """Route packets with ``mark`` by ``table``. EEXIST when that rule is there."""
    payload = _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_COMPAT, 0, 0, _FR_ACT_TO_TBL, 0)
    payload += u32_host(_FRA_PRIORITY, priority) + u32_host(_FRA_FWMARK, mark)
    payload += u32_host(_FRA_FWMASK, 0xFFFF_FFFF) + u32_host(_FRA_TABLE, table)
    return Request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, payload, f"adding the rule for mark {mark}")


def add_link_rule(family: int, priority: int, link: str, table: int) -> Request:
    """Route what comes in by ``link`` (``lo``: what the namespace itself sends) by ``table``. EEXIST as above."""
    payload = _RTMSG.pack(family, 0, 0, 0, _RT_TABLE_COMPAT, 0, 0, _FR_ACT_TO_TBL, 0)
    payload += u32_host(_FRA_PRIORITY, priority) + text(_FRA_IIFNAME, link) + u32_host(_FRA_TABLE, table)
    return Request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, payload, f"adding the rule for {link}")


def remove_found(message: Message) -> Request:
    """Remove the address, route or rule that a dump told of. ESRCH, ENOENT or EADDRNOTAVAIL when it is gone."""
    kinds = {RTM_NEWADDR: RTM_DELADDR, RTM_NEWROUTE: RTM_DELROUTE, RTM_NEWRULE: RTM_DELRULE}
    return Request(kinds[message.type], 0, message.payload, "removing what does not belong there")


def link_payload(index: int) -> bytes:
    """Payload of a request for one link."""
    return _ifinfo(index, 0) + u32_host(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)


def dump_links_payload() -> bytes:
    """Payload of a dump of all links, without their statistics."""
    return _IFINFO.pack(_AF_UNSPEC, 0, 0, 0, 0) + u32_host(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)


def dump_addresses_payload() -> bytes:
    """Payload of a dump of all addresses."""
    return _IFADDR.pack(_AF_UNSPEC, 0, 0, 0, 0)


def dump_neighbours_payload() -> bytes:
    """Payload of a dump of all neighbours."""
    return _NDMSG.pack(_AF_UNSPEC, 0, 0, 0, 0)


def dump_routes_payload(family: int = _AF_UNSPEC) -> bytes:
    """Payload of a dump of all routes (of rules too)."""
    return _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)


def parse_link(message: Message) -> Link:
    """A link out of a dump. Raises NetlinkError."""
    _any_family, _kind, index, flags, _change = _IFINFO.unpack_from(message.payload)
    parts = parse_attributes(message.payload[_IFINFO.size :])
    return Link(
        index=index,
        name=_text(parts.get(_IFLA_IFNAME)),
        alias=_text(parts.get(_IFLA_IFALIAS)),
        mtu=_u32(parts.get(_IFLA_MTU)) or 0,
        is_up=bool(flags & _IFF_UP),
    )


def parse_address(message: Message) -> tuple[int, IPAddress, int]:
    """(link index, address, prefix length) out of a dump. Raises NetlinkError."""
    _any_family, length, _flags, _scope, index = _IFADDR.unpack_from(message.payload)
    parts = parse_attributes(message.payload[_IFADDR.size :])
    # On a point-to-point link IFA_ADDRESS is the other end; IPv6 has IFA_LOCAL only there.
    return index, ip_address(parts.get(_IFA_LOCAL) or parts[_IFA_ADDRESS]), length


def parse_routes(message: Message) -> Iterable[Route]:
    """The routes of one message of a dump: one for each next hop. Raises NetlinkError."""
    family, length, _, _, table, protocol, _scope, kind, _flags = _RTMSG.unpack_from(message.payload)
    if family not in (_AF_INET, _AF_INET6):
        return
    parts = parse_attributes(message.payload[_RTMSG.size :])
    full_table = _u32(parts.get(_RTA_TABLE)) or table
    priority = _u32(parts.get(_RTA_PRIORITY)) or 0
    gateway = parts.get(_RTA_GATEWAY)
    hops = [(_u32(parts.get(_RTA_OIF)), gateway)] if _RTA_MULTIPATH not in parts else _hops(parts[_RTA_MULTIPATH])
    for index, address in hops:
        yield Route(
            family=family,
            packed=parts.get(_RTA_DST, b""),
            prefix_length=length,
            table=full_table,
            kind=kind,
            link_index=index,
            gateway=None if address is None else ip_address(address),
            priority=priority,
            is_kernels=protocol == _RTPROT_KERNEL,
        )


def _hops(data: bytes) -> list[tuple[int | None, bytes | None]]:
    hops: list[tuple[int | None, bytes | None]] = []
    offset = 0
    while offset + _NEXT_HOP.size <= len(data):
        length, _flags, _weight, index = _NEXT_HOP.unpack_from(data, offset)
        if length < _NEXT_HOP.size:
            break
        parts = dict(list_attributes(data[offset + _NEXT_HOP.size : offset + length]))
        hops.append((index, parts.get(_RTA_GATEWAY)))
        offset += (length + 3) & ~3
    return hops


def parse_rule(message: Message) -> Rule:
    """A routing rule out of a dump. Raises NetlinkError."""
    family, _, _, _, table, *_ = _RTMSG.unpack_from(message.payload)
    parts = parse_attributes(message.payload[_RTMSG.size :])
    return Rule(
        family=family,
        priority=_u32(parts.get(_FRA_PRIORITY)) or 0,
        mark=_u32(parts.get(_FRA_FWMARK)) or 0,
        mask=_u32(parts.get(_FRA_FWMASK)) or 0,
        table=_u32(parts.get(_FRA_TABLE)) or table,
        link=_text(parts.get(_FRA_IIFNAME)),
    )


def parse_neighbour(message: Message) -> tuple[int, IPAddress, bytes] | None:
    """(link index, address, hardware address) of a permanent neighbour out of a dump; None for another kind."""
    family, index, state, _flags, _kind = _NDMSG.unpack_from(message.payload)
    parts = parse_attributes(message.payload[_NDMSG.size :])
    if family not in (_AF_INET, _AF_INET6) or not state & _NUD_PERMANENT or _NDA_LLADDR not in parts:
        return None
    return index, ip_address(parts.get(_NDA_DST, IPv4Address(0).packed)), parts[_NDA_LLADDR]


def _text(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode("utf-8", "replace")


def _u32(data: bytes | None) -> int | None:
    return None if data is None else int(struct.unpack("=I", data)[0])
