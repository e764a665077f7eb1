"""Networks around the addresses that devboxes asked for without a name. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from outgate.core.seen import Seen
from outgate.model.addresses import PortRange, Protocol
from outgate.model.policy import PORTS_PER_CIDR_MAX, CidrRule

NEIGHBOURS_MIN: Final = 4
"""Addresses of one /24, asked for the same, that are told as a network."""
_BLOCK_BITS: Final = 24
_WITH_PORTS: Final = (Protocol.TCP, Protocol.UDP)
_Service = tuple[int, int]
"""Protocol and port."""


def gather_networks(by_address: Mapping[IPv4Address, Sequence[Seen]]) -> list[tuple[CidrRule, list[Seen]]]:
    """The fewest readable networks that cover what was asked for at each address, in order, and what each covers."""
    alike: dict[tuple[IPv4Network, tuple[PortRange, ...]], list[IPv4Address]] = defaultdict(list)
    for address, rows in by_address.items():
        block = IPv4Network((int(address) >> 32 - _BLOCK_BITS << 32 - _BLOCK_BITS, _BLOCK_BITS))
        alike[block, _ports_of(rows)].append(address)
    rules: set[CidrRule] = set()
    for (_, ports), addresses in alike.items():
        if len(addresses) >= NEIGHBOURS_MIN:
            rules.add(CidrRule(_network_around(addresses), ports))
        else:
            rules |= {CidrRule(IPv4Network(address), ports) for address in addresses}
    kept = [rule for rule in rules if not any(_covers(other, rule) for other in rules - {rule})]
    kept.sort(key=lambda rule: (rule.network, str(rule)))
    return [(rule, [one for a, rows in by_address.items() if a in rule.network for one in rows]) for rule in kept]


def _ports_of(rows: Iterable[Seen]) -> tuple[PortRange, ...]:
    """The ports that were asked for; empty where a protocol without ports was, since only a rule for all opens it."""
    services = {(one.protocol, one.port) for one in rows}
    if any(port is None or protocol not in _WITH_PORTS for protocol, port in services):
        return ()
    ranges = tuple(_join_ports(services))
    if len(ranges) <= PORTS_PER_CIDR_MAX:
        return ranges
    return tuple(
        PortRange(min(ports), max(ports), protocol, end_port_given=True)
        for protocol in _WITH_PORTS
        if (ports := [port for of, port in services if of == protocol and port is not None])
    )


def _join_ports(services: Iterable[tuple[int, int | None]]) -> Iterator[PortRange]:
    for protocol in _WITH_PORTS:
        ports = sorted(port for of, port in services if of == protocol and port is not None)
        while ports:
            first = last = ports.pop(0)
            while ports and ports[0] == last + 1:
                last = ports.pop(0)
            yield PortRange(first, last, protocol, end_port_given=first != last)


def _network_around(addresses: Iterable[IPv4Address]) -> IPv4Network:
    values = [int(address) for address in addresses]
    bits = (min(values) ^ max(values)).bit_length()
    return IPv4Network((min(values) >> bits << bits, 32 - bits))


def _covers(outer: CidrRule, inner: CidrRule) -> bool:
    """Whether ``outer`` allows all that ``inner`` does. Of two that allow the same, neither is in the way."""
    if not inner.network.subnet_of(outer.network):
        return False
    if not outer.ports:
        return True
    return bool(inner.ports) and all(
        any(o.protocol == i.protocol and o.first <= i.first and i.last <= o.last for o in outer.ports)
        for i in inner.ports
    )
