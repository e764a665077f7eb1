"""The only table of special addresses, and the deny floor's fixed part.

Every entry cites its source: the IANA registries of special-purpose addresses (RFC 6890 and the RFCs
that added to it) and, for metadata services, the clouds' own documents. The most specific entry wins.

Special addresses come in two kinds. Those of :data:`ALWAYS_DENIED` are closed to everybody, under
``allow_all`` too. The others (private, shared, unique local, reserved) are closed unless something that
speaks of exactly that range opens them: a CIDR rule that lies wholly inside, ``allow_all`` or, for
names, one of the operator's internal zones.

An IPv6 address that carries an IPv4 address is judged by both, because a translator or a tunnel end on
the way would deliver it to the one inside.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Final

from outgate.model.addresses import IPAddress
from outgate.model.verdict import DenyReason

ALWAYS_DENIED: Final = frozenset(
    {
        DenyReason.FLOOR_LOOPBACK,
        DenyReason.FLOOR_UNSPECIFIED,
        DenyReason.FLOOR_LINK_LOCAL,
        DenyReason.FLOOR_METADATA,
        DenyReason.FLOOR_MULTICAST,
        DenyReason.FLOOR_BROADCAST,
        DenyReason.FLOOR_EMBEDDED,
        DenyReason.FLOOR_HOST,
        DenyReason.FLOOR_DEVBOX,
    }
)
"""The classes that nothing opens, not even ``allow_all``."""

_TABLE4: Final[tuple[tuple[str, DenyReason], ...]] = (
    ("0.0.0.0/8", DenyReason.FLOOR_UNSPECIFIED),  # "this network", RFC 791; Linux takes 0.0.0.0 for itself
    ("10.0.0.0/8", DenyReason.FLOOR_PRIVATE),  # RFC 1918
    ("100.64.0.0/10", DenyReason.FLOOR_SHARED),  # RFC 6598
    ("100.100.100.200/32", DenyReason.FLOOR_METADATA),  # Alibaba Cloud
    ("127.0.0.0/8", DenyReason.FLOOR_LOOPBACK),  # RFC 1122 §3.2.1.3
    ("168.63.129.16/32", DenyReason.FLOOR_METADATA),  # Azure WireServer
    ("169.254.0.0/16", DenyReason.FLOOR_LINK_LOCAL),  # RFC 3927
    ("169.254.0.23/32", DenyReason.FLOOR_METADATA),  # Tencent Cloud
    ("169.254.42.42/32", DenyReason.FLOOR_METADATA),  # Scaleway
    ("169.254.169.254/32", DenyReason.FLOOR_METADATA),  # AWS, Google, Azure, OpenStack and most others
    ("169.254.170.2/32", DenyReason.FLOOR_METADATA),  # AWS ECS task credentials
    ("169.254.170.23/32", DenyReason.FLOOR_METADATA),  # AWS EKS pod identity
    ("172.16.0.0/12", DenyReason.FLOOR_PRIVATE),  # RFC 1918
    # RFC 6890. The registry calls 192.0.0.9 and .10 reachable (RFC 7723, RFC 8155), but those anycast
    # addresses reach the operator's own port-mapping and relay servers, so they stay closed.
    ("192.0.0.0/24", DenyReason.FLOOR_RESERVED),
    ("192.0.0.192/32", DenyReason.FLOOR_METADATA),  # Oracle Cloud Classic
    ("192.0.2.0/24", DenyReason.FLOOR_RESERVED),  # documentation, RFC 5737
    ("192.88.99.0/24", DenyReason.FLOOR_RESERVED),  # 6to4 relay anycast, deprecated by RFC 7526
    ("192.168.0.0/16", DenyReason.FLOOR_PRIVATE),  # RFC 1918
    ("198.18.0.0/15", DenyReason.FLOOR_RESERVED),  # benchmarking, RFC 2544
    ("198.51.100.0/24", DenyReason.FLOOR_RESERVED),  # documentation, RFC 5737
    ("203.0.113.0/24", DenyReason.FLOOR_RESERVED),  # documentation, RFC 5737
    ("224.0.0.0/4", DenyReason.FLOOR_MULTICAST),  # RFC 5771
    ("240.0.0.0/4", DenyReason.FLOOR_RESERVED),  # RFC 1112 §4
    ("255.255.255.255/32", DenyReason.FLOOR_BROADCAST),  # RFC 919 §7
)

_TABLE6: Final[tuple[tuple[str, DenyReason | None], ...]] = (
    # Only 2000::/3 is global unicast (RFC 4291 §2.4). The rest is reserved unless an entry below says
    # more: that covers discard (100::/64, RFC 6666), dummy (100:0:0:1::/64, RFC 9780), SRv6 SIDs
    # (5f00::/16, RFC 9602), site-local (fec0::/10, RFC 3879) and IPv4-compatible (::/96, RFC 4291 §2.5.5.1).
    ("::/0", DenyReason.FLOOR_RESERVED),
    ("2000::/3", None),
    ("::/128", DenyReason.FLOOR_UNSPECIFIED),  # RFC 4291 §2.5.2
    ("::1/128", DenyReason.FLOOR_LOOPBACK),  # RFC 4291 §2.5.3
    ("::ffff:0:0/96", None),  # IPv4-mapped, RFC 4291 §2.5.5.2: judged by the address inside alone
    ("64:ff9b::/96", None),  # NAT64, RFC 6052: judged by the address inside alone
    # Local-use NAT64, RFC 8215: each network places the IPv4 address where it likes (RFC 6052 §2.2).
    ("64:ff9b:1::/48", DenyReason.FLOOR_EMBEDDED),
    # IETF protocol assignments, RFC 2928. Benchmarking (2001:2::/48, RFC 5180), the ORCHIDs (2001:10::/28,
    # 2001:20::/28: never routed, RFC 7343) and the anycast servers (2001:1::/32) are part of it.
    ("2001::/23", DenyReason.FLOOR_RESERVED),
    # Teredo, RFC 4380: the client's address is inverted in the last 32 bits, where no prefix can match it.
    ("2001::/32", DenyReason.FLOOR_EMBEDDED),
    ("2001:3::/32", None),  # AMT, RFC 7450
    ("2001:4:112::/48", None),  # AS112, RFC 7535
    ("2001:db8::/32", DenyReason.FLOOR_RESERVED),  # documentation, RFC 3849
    ("2002::/16", None),  # 6to4, RFC 3056: judged by the address inside alone
    ("3fff::/20", DenyReason.FLOOR_RESERVED),  # documentation, RFC 9637
    ("fc00::/7", DenyReason.FLOOR_UNIQUE_LOCAL),  # RFC 4193
    ("fd00:42::42/128", DenyReason.FLOOR_METADATA),  # Scaleway
    ("fd00:100::100:200/128", DenyReason.FLOOR_METADATA),  # Alibaba Cloud
    ("fd00:a9fe:a9fe::1/128", DenyReason.FLOOR_METADATA),  # Akamai (Linode)
    ("fd00:c1::a9fe:a9fe/128", DenyReason.FLOOR_METADATA),  # Oracle Cloud
    ("fd00:ec2::/32", DenyReason.FLOOR_METADATA),  # AWS: instance metadata, pod identity and the like
    ("fd20:ce::254/128", DenyReason.FLOOR_METADATA),  # Google Cloud
    ("fe80::/10", DenyReason.FLOOR_LINK_LOCAL),  # RFC 4291 §2.5.6
    ("fe80::a9fe:a9fe/128", DenyReason.FLOOR_METADATA),  # OpenStack
    ("ff00::/8", DenyReason.FLOOR_MULTICAST),  # RFC 4291 §2.7
)

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")

_READABLE_PREFIXES: Final = (_MAPPED, _COMPATIBLE, _NAT64, _SIX_TO_FOUR)
"""The forms that carry the IPv4 address right behind a fixed prefix, so that a prefix can match it."""

_LOW32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class _Steps:
    """The table as a step function over the whole family: the class from ``starts[i]`` on is ``classes[i]``."""

    starts: tuple[int, ...]
    classes: tuple[DenyReason | None, ...]

    def at(self, value: int) -> DenyReason | None:
        return self.classes[bisect_right(self.starts, value) - 1]

    def spans(self, first: int, last: int) -> Iterator[tuple[int, int, DenyReason | None]]:
        """The steps between two addresses, cut to them, with their classes."""
        step = bisect_right(self.starts, first) - 1
        while step < len(self.starts) and self.starts[step] <= last:
            end = self.starts[step + 1] - 1 if step + 1 < len(self.starts) else last
            yield max(first, self.starts[step]), min(last, end), self.classes[step]
            step += 1


def _flatten(table: Sequence[tuple[IPv4Network | IPv6Network, DenyReason | None]]) -> _Steps:
    edges = {0}
    for network, _ in table:
        edges |= {int(network.network_address), int(network.broadcast_address) + 1}
    # Longest prefix first: the first entry that holds an address is the most specific one.
    by_length = sorted(table, key=lambda entry: -entry[0].prefixlen)
    starts: list[int] = []
    classes: list[DenyReason | None] = []
    for edge in sorted(edges):
        reason = next(
            (r for n, r in by_length if int(n.network_address) <= edge <= int(n.broadcast_address)),
            None,
        )
        if not classes or classes[-1] is not reason:
            starts.append(edge)
            classes.append(reason)
    return _Steps(tuple(starts), tuple(classes))


_STEPS4: Final = _flatten([(IPv4Network(text), reason) for text, reason in _TABLE4])
_STEPS6: Final = _flatten([(IPv6Network(text), reason) for text, reason in _TABLE6])

_CONDITIONAL4: Final = tuple(sorted(IPv4Network(text) for text, reason in _TABLE4 if reason not in ALWAYS_DENIED))
_CONDITIONAL4_STARTS: Final = tuple(int(network.network_address) for network in _CONDITIONAL4)
_UNIQUE_LOCAL: Final = IPv6Network("fc00::/7")
_ALL6_LAST: Final = (1 << 128) - 1


def normalise_address(address: IPAddress) -> IPAddress:
    """``address``, or the IPv4 address itself when it is written as IPv4-mapped IPv6.

    A socket that connects to a mapped address sends IPv4 (RFC 4038 §4.2), so the two are one.
    """
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def embedded_addresses(address: IPAddress) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that ``address`` carries inside: none, one, or for Teredo two (server, client)."""
    if isinstance(address, IPv4Address):
        return ()
    return tuple(IPv4Address(value) for value in _embedded_values(int(address)))


def _embedded_values(value: int) -> tuple[int, ...]:
    match value >> 112:
        case 0x0000:
            # Mapped and compatible.
            return (value & _LOW32,) if value >> 32 in (0xFFFF, 0) else ()
        case 0x0064:
            # NAT64; in the local-use prefix the end is where a /96 has it, the usual choice.
            return (value & _LOW32,) if value >> 32 == 0x0064_FF9B << 64 or value >> 80 == 0x0064_FF9B_0001 else ()
        case 0x2002:
            return (value >> 80 & _LOW32,)
        case 0x2001:
            # Teredo: the server in the clear, the client inverted (RFC 4380 §4).
            return (value >> 64 & _LOW32, ~value & _LOW32) if value >> 96 == 0x2001_0000 else ()
        case _:
            return ()


def classify(address: IPAddress) -> DenyReason | None:
    """The class of ``address`` by the fixed table, or None for an ordinary one.

    Of the address and those it carries, the strictest class counts: first those of
    :data:`ALWAYS_DENIED`, then the others.
    """
    value = int(address)
    if isinstance(address, IPv4Address):
        return _STEPS4.at(value)
    worst = _STEPS6.at(value)
    for inner in _embedded_values(value):
        worst = _stricter(worst, _STEPS4.at(inner))
    return worst


def _stricter(outer: DenyReason | None, inner: DenyReason | None) -> DenyReason | None:
    """The stricter of two classes. An address inside explains more than the form that hides it."""
    if outer is None:
        return inner
    if inner in ALWAYS_DENIED and (outer is DenyReason.FLOOR_EMBEDDED or outer not in ALWAYS_DENIED):
        return inner
    return outer


def conditional_range(address: IPAddress) -> IPv4Network | IPv6Network | None:
    """The range a rule would have to lie in to open ``address``; None when it is in no such range.

    Speaks of ranges that people know (10.0.0.0/8, fc00::/7); reserved IPv6 space has no useful one.
    """
    if isinstance(address, IPv6Address):
        return _UNIQUE_LOCAL if address in _UNIQUE_LOCAL else None
    return _conditional_range4(int(address))


def _conditional_range4(value: int) -> IPv4Network | None:
    position = bisect_right(_CONDITIONAL4_STARTS, value) - 1
    if position >= 0 and value <= int(_CONDITIONAL4[position].broadcast_address):
        return _CONDITIONAL4[position]
    return None


def lies_in_conditional_range(network: IPv4Network) -> bool:
    """Whether ``network`` lies wholly inside one private, shared or reserved range, so that a rule for it opens it."""
    inside = _conditional_range4(int(network.network_address))
    return inside is not None and network.prefixlen >= inside.prefixlen


def open_spans(first: int, last: int, *, conditional: bool) -> tuple[tuple[int, int], ...]:
    """What CIDR rules can open between two IPv4 addresses (as integers), in order.

    With ``conditional`` that part of it which only rules inside a private, shared or reserved range
    open; without, the ordinary addresses. The two never overlap, nor do they hold an always-denied one.
    """
    return tuple(
        (start, end)
        for start, end, reason in _STEPS4.spans(first, last)
        if reason not in ALWAYS_DENIED and (reason is not None) is conditional
    )


def embedding_networks(network: IPv4Network) -> tuple[IPv6Network, ...]:
    """The IPv6 networks whose addresses carry an address of ``network`` right behind a fixed prefix.

    For the ruleset: what is closed in IPv4 is closed in these as well. (The forms where the address
    stands elsewhere are always denied as a whole.)
    """
    return tuple(
        IPv6Network(
            (
                int(outer.network_address) | int(network.network_address) << 96 - outer.prefixlen,
                outer.prefixlen + network.prefixlen,
            )
        )
        for outer in _READABLE_PREFIXES
    )


def special_spans() -> tuple[tuple[IPAddress, IPAddress], ...]:
    """What :func:`classify` gives any class, as disjoint spans (first, last) in order: IPv4, then IPv6.

    Of the embedding forms only those where a prefix matches the address inside; the others are classes of their own.
    """
    spans4 = _joined((first, last) for first, last, reason in _STEPS4.spans(0, _LOW32) if reason is not None)
    inside = [
        (outer_first << 96 - outer.prefixlen | int(outer.network_address), _last_behind(outer, outer_last))
        for outer in _READABLE_PREFIXES
        for outer_first, outer_last in spans4
    ]
    own = ((first, last) for first, last, reason in _STEPS6.spans(0, _ALL6_LAST) if reason is not None)
    spans6 = _joined(sorted((*own, *inside)))
    return (
        *((IPv4Address(first), IPv4Address(last)) for first, last in spans4),
        *((IPv6Address(first), IPv6Address(last)) for first, last in spans6),
    )


def _last_behind(outer: IPv6Network, value: int) -> int:
    """The last address of the form that carries an IPv4 address ``value``."""
    shift = 96 - outer.prefixlen
    return int(outer.network_address) | value << shift | (1 << shift) - 1


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted spans with those made one that touch or overlap."""
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def always_denied_networks() -> tuple[IPv4Network | IPv6Network, ...]:
    """The always-denied part of the table as disjoint networks, embedding forms included: IPv4, then IPv6."""
    networks4 = [IPv4Network(text) for text, reason in _TABLE4 if reason in ALWAYS_DENIED]
    networks6 = [IPv6Network(text) for text, reason in _TABLE6 if reason in ALWAYS_DENIED]
    networks6 += [inside for network in networks4 for inside in embedding_networks(network)]
    return (*collapse_addresses(networks4), *collapse_addresses(networks6))
