"""What the router namespace is to route, and what else is found there: rules, routes and addresses.

The namespace is Outgate's own, so that whatever else turns up in it was put there by somebody, may lead packets past
what was decided, and is removed.
"""

import errno
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from outgate.dataplane.driver import DevboxLink
from outgate.dataplane.layout import (
    FORWARD_MARK,
    FORWARD_RULE_PRIORITY,
    FORWARD_TABLE,
    OWN_RULE_PRIORITY,
    RELAY_RULE_PRIORITY,
    ROUTER_LINK_LOCAL,
    UPLINK_INDEX,
    NetworkLayout,
)
from outgate.dataplane.links import LOOPBACK, LOOPBACK_INDEX, Rtnetlink, router_end
from outgate.dataplane.netlink import Message
from outgate.dataplane.rtnetlink import (
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_UNREACHABLE,
    Route,
    Rule,
    parse_address,
    parse_routes,
    parse_rule,
    remove_found,
)
from outgate.model.addresses import IPAddress

_AF_INET, _AF_INET6 = 2, 10
_RT_TABLE_DEFAULT: Final = 253
_BUILT_IN: Final = frozenset({(0, RT_TABLE_LOCAL), (32_766, RT_TABLE_MAIN), (32_767, _RT_TABLE_DEFAULT)})
"""Priorities and tables of the rules that every namespace begins with (ip-rule(8))."""
_KERNELS_ADDRESSES: Final = frozenset(
    {(LOOPBACK_INDEX, IPv4Address("127.0.0.1")), (LOOPBACK_INDEX, IPv6Address("::1"))}
)
"""The kernel gives them to the loopback device itself, that of IPv6 only where it has IPv6; nothing here needs them."""
_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL, errno.ENODEV})

RouteKey = tuple[int, int, bytes, int, int | None]
"""Version, table, destination with its length, and the link; None for a route to nowhere."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What belongs there. Rules are (family, priority, mark, link, table)."""

    rules: frozenset[tuple[int, int, int, str, int]]
    routes: frozenset[RouteKey]
    addresses: frozenset[tuple[int, IPAddress]]


def wanted_routing(layout: NetworkLayout, devboxes: Collection[DevboxLink]) -> Wanted:
    """Everything that the namespace needs to route for these devboxes."""
    return Wanted(
        frozenset(_rules(layout)), frozenset(_routes(layout, devboxes)), frozenset(_addresses(layout, devboxes))
    )


def _rules(layout: NetworkLayout) -> Iterator[tuple[int, int, int, str, int]]:
    for family in (_AF_INET, _AF_INET6) if layout.has_ipv6 else (_AF_INET,):
        yield family, RELAY_RULE_PRIORITY, layout.relay_mark, "", layout.relay_table
        yield family, FORWARD_RULE_PRIORITY, FORWARD_MARK, "", FORWARD_TABLE
        yield family, OWN_RULE_PRIORITY, 0, LOOPBACK, FORWARD_TABLE


def _routes(layout: NetworkLayout, devboxes: Iterable[DevboxLink]) -> Iterator[RouteKey]:
    for version, pool in ((4, layout.pool4), (6, layout.pool6)) if layout.has_ipv6 else ((4, layout.pool4),):
        for table in (RT_TABLE_MAIN, FORWARD_TABLE):
            yield version, table, pool.network_address.packed, pool.prefixlen, None
        yield version, layout.relay_table, b"", 0, LOOPBACK_INDEX
        yield version, FORWARD_TABLE, b"", 0, UPLINK_INDEX
    for devbox in devboxes:
        index = router_end(layout, devbox.slot).index
        for address in devbox.addresses:
            yield address.version, RT_TABLE_MAIN, address.packed, address.max_prefixlen, index


def _addresses(layout: NetworkLayout, devboxes: Iterable[DevboxLink]) -> Iterator[tuple[int, IPAddress]]:
    yield LOOPBACK_INDEX, layout.gateway4
    yield UPLINK_INDEX, layout.uplink_router4
    if layout.has_ipv6:
        yield LOOPBACK_INDEX, layout.gateway6
        yield UPLINK_INDEX, layout.uplink_router6
        for devbox in devboxes:
            yield router_end(layout, devbox.slot).index, ROUTER_LINK_LOCAL


def compare_rules(messages: Iterable[Message], wanted: Wanted) -> Iterator[str]:
    """How the rules differ from what is wanted, a sentence each."""
    found = [_rule_key(rule) for rule in map(parse_rule, messages) if not _is_built_in(rule)]
    for key in sorted(wanted.rules):
        if found.count(key) != 1:
            yield f"The routing rule with priority {key[1]} is gone or doubled."
    for key in sorted(set(found) - wanted.rules):
        yield f"A routing rule with priority {key[1]} does not belong there."


def compare_routes(messages: Iterable[Message], wanted: Wanted) -> Iterator[str]:
    """How the routes differ from what is wanted, a sentence each."""
    routes = [route for message in messages for route in parse_routes(message) if _is_somebodys(route)]
    found = {_route_key(route): route for route in routes}
    for version, table, packed, _length, _link in sorted(wanted.routes - found.keys(), key=str):
        where = "the default route" if not packed else f"the route to {_shown(packed)}"
        yield f"In table {table}, {where} of IPv{version} is gone."
    for key in sorted(found.keys() - wanted.routes, key=str):
        yield f"In table {key[1]}, a route to {found[key].destination} does not belong there."


def compare_addresses(messages: Iterable[Message], wanted: Wanted) -> Iterator[str]:
    """How the addresses differ from what is wanted, a sentence each."""
    found = {(index, address) for index, address, _length in map(parse_address, messages)}
    for _index, address in sorted(wanted.addresses - found, key=str):
        yield f"The address {address} of the router namespace is gone."
    for _index, address in sorted(found - wanted.addresses - _KERNELS_ADDRESSES, key=str):
        yield f"The address {address} does not belong into the router namespace."


def remove_strangers(links: Rtnetlink, wanted: Wanted) -> None:
    """Remove what is found and not wanted. Raises NetlinkError."""
    kept = wanted.addresses | _KERNELS_ADDRESSES
    addresses = [m for m in links.address_messages() if parse_address(m)[:2] not in kept]
    rules = [m for m in links.rule_messages() if _is_strange_rule(parse_rule(m), wanted)]
    links.do(map(remove_found, (*addresses, *rules)), ignoring=_GONE)
    # After the addresses, which take routes of the kernel's own along.
    routes = [
        message
        for message in links.route_messages()
        if any(_is_somebodys(route) and _route_key(route) not in wanted.routes for route in parse_routes(message))
    ]
    links.do(map(remove_found, routes), ignoring=_GONE)


def _is_strange_rule(rule: Rule, wanted: Wanted) -> bool:
    return not _is_built_in(rule) and _rule_key(rule) not in wanted.rules


def _is_built_in(rule: Rule) -> bool:
    return (rule.priority, rule.table) in _BUILT_IN and not rule.mark and not rule.link


def _rule_key(rule: Rule) -> tuple[int, int, int, str, int]:
    return rule.family, rule.priority, rule.mark, rule.link, rule.table


def _is_somebodys(route: Route) -> bool:
    """Whether it is not one that the kernel makes for each address and link."""
    return not route.is_kernels


def _route_key(route: Route) -> RouteKey:
    link = None if route.kind == RTN_UNREACHABLE else route.link_index
    return route.version, route.table, route.packed, route.prefix_length, link


def _shown(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == len(IPv4Address(0).packed) else IPv6Address(packed)
