"""CIDR rules by address, protocol and port: the first listed rule wins, whatever the number of rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from outgate.core.ranges import lies_in_conditional_range
from outgate.core.segments import Segment, Segments, find_owner, overlay
from outgate.model.addresses import PortRange, Protocol
from outgate.model.policy import CidrRule

EVERY_PORT = (0, 65535)
"""What a rule without ports covers. Port 0 is no port that a rule can name, yet a packet can carry it."""


@dataclass(frozen=True, slots=True)
class NetworkRules:
    """All rules that name one and the same network. Owners are positions in ``allowed_cidrs``."""

    network: IPv4Network
    tcp: Segments
    udp: Segments
    unrestricted: int | None
    """The first rule without ports: it alone covers protocols other than TCP and UDP."""
    nearest: int
    """The first rule that names the network, whatever its ports."""
    is_conditional: bool
    """Whether the network lies wholly inside one private, shared or reserved range, and so opens it."""

    def find(self, protocol: int, port: int | None) -> int | None:
        """The first rule that covers ``protocol`` and ``port``; without a port, the first that covers them all."""
        if port is None or protocol not in (Protocol.TCP, Protocol.UDP):
            return self.unrestricted
        return find_owner(self.tcp if protocol == Protocol.TCP else self.udp, port)


def group_rules(rules: Sequence[CidrRule]) -> tuple[NetworkRules, ...]:
    """``rules`` by network, each network once, in the order in which they are first named."""
    by_network: dict[IPv4Network, list[int]] = {}
    for position, rule in enumerate(rules):
        by_network.setdefault(rule.network, []).append(position)
    return tuple(_group(network, rules, positions) for network, positions in by_network.items())


def _group(network: IPv4Network, rules: Sequence[CidrRule], positions: Sequence[int]) -> NetworkRules:
    return NetworkRules(
        network=network,
        tcp=overlay(_spans(rules, positions, Protocol.TCP)),
        udp=overlay(_spans(rules, positions, Protocol.UDP)),
        unrestricted=next((position for position in positions if not rules[position].ports), None),
        nearest=positions[0],
        is_conditional=lies_in_conditional_range(network),
    )


def _spans(rules: Sequence[CidrRule], positions: Sequence[int], protocol: Protocol) -> list[Segment]:
    spans: list[Segment] = []
    for position in positions:
        ports = rules[position].ports
        if not ports:
            spans.append(Segment(*EVERY_PORT, position))
        spans += [Segment(span.first, span.last, position) for span in ports if _speaks_of(span, protocol)]
    return spans


def _speaks_of(ports: PortRange, protocol: Protocol) -> bool:
    return ports.protocol is None or ports.protocol == protocol


@dataclass(frozen=True, slots=True)
class CidrIndex:
    """The networks of a policy by prefix length: at most 33 dictionary look-ups per question."""

    by_shift: tuple[tuple[int, dict[int, NetworkRules]], ...]

    def find(self, address: int, protocol: int, port: int | None, *, is_conditional: bool) -> int | None:
        """The first listed rule that covers the flow, or None.

        ``is_conditional`` says that ``address`` lies in a private, shared or reserved range: then only
        rules for a network wholly inside such a range count.
        """
        best: int | None = None
        for shift, networks in self.by_shift:
            rules = networks.get(address >> shift)
            if rules is None or (is_conditional and not rules.is_conditional):
                continue
            found = rules.find(protocol, port)
            if found is not None and (best is None or found < best):
                best = found
        return best

    def find_nearest(self, address: int, *, is_conditional: bool) -> int | None:
        """The first listed rule that covers the address on some port or other, or None."""
        candidates = (networks.get(address >> shift) for shift, networks in self.by_shift)
        return min(
            (
                rules.nearest
                for rules in candidates
                if rules is not None and (rules.is_conditional or not is_conditional)
            ),
            default=None,
        )


def index_cidrs(rules: Sequence[CidrRule]) -> CidrIndex:
    """An index over ``rules``; positions are those of the given order."""
    by_shift: dict[int, dict[int, NetworkRules]] = {}
    for group in group_rules(rules):
        shift = 32 - group.network.prefixlen
        by_shift.setdefault(shift, {})[int(group.network.network_address) >> shift] = group
    return CidrIndex(tuple(by_shift.items()))
