"""The whole nft table of the router namespace as text: a pure function, compared as a whole in golden files.

How a packet of a devbox travels, hook by hook:

* ``check_source`` (raw): only with the source address that its link was given. Neighbour discovery is the one
  thing that may also come from a link-local address. Lookups at the gateway are not tracked. What passes is
  marked: only marked packets find a route out, so that without this table nothing does.
* ``judge`` (mangle): flows under a live grant and flows of the relay go on; everything new is decided here, in
  this order: lookups elsewhere → our DNS gate; tunnels, which are at the gateway → relay; the deny floor; the
  chain of the devbox's policy (which writes the grant into the flow's mark; what no rule allows under a policy that
  only reports goes on in ``report``); names (``name_bound``: pinned addresses → relay); else denied, at once.
* ``forward``: live grants pass, in both directions. A flow whose grant died is judged again by its *original*
  direction, whichever end sent the packet, and lives on under another rule's grant or is reset. Nothing new
  comes in from the uplink, and nothing ever goes from link to link.
* ``input``: from devboxes only lookups, what ``judge`` marked for the relay, neighbour discovery.
* ``output``: the relay's own connections never reach the always-denied addresses: a second lock behind its own check.

A chain of a policy never changes while it is used; updates change elements only. Nothing here may be
reordered without thinking: ``accept`` ends a hook for good, and ``tproxy`` lets a packet pass when nobody
listens, which is why a ``drop`` stands right behind it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from outgate.core.ranges import embedding_networks, special_spans
from outgate.dataplane.driver import FLOWS_PER_DEVBOX_MAX, RouterState
from outgate.dataplane.layout import FORWARD_MARK, NetworkLayout
from outgate.dataplane.pin_elements import PINS4, PINS6, TABLE, TEXT_COMMENT_BYTES_MAX, Pin, encode_names
from outgate.dataplane.ruleset_chains import CHAINS, POLICY_CHAIN, TUNNELS_JUDGE, TUNNELS_RELAY
from outgate.model.addresses import IPAddress
from outgate.model.plan import (
    GRANT_ALL_BIT,
    REPORT_NUMBER_MAX,
    AddressCell,
    PolicyPlan,
    PortCell,
    grant_of_report,
)

LIVE: Final = "live"
DEVBOX_POLICY: Final = "devbox_policy"
SOURCE4: Final = "source4"
SOURCE6: Final = "source6"
HOST4: Final = "host4"
HOST6: Final = "host6"
HOST6TO4: Final = "host6to4"
"""/48 networks, by their first address: what a 6to4 router would bring to one of the host's IPv4 addresses."""
FLOOR4: Final = "floor4"
FLOOR6: Final = "floor6"
FLOWS: Final = "flows"
DENIED: Final = "denied"
DENIED_LOGGED: Final = "denied_logged"
SPECIAL4: Final = "special4"
"""All special addresses, private ones too: a policy that only reports lets nothing pass to them but by a rule."""
SPECIAL6: Final = "special6"
REDIRECTED4: Final = "redirected4"
REDIRECTED6: Final = "redirected6"

DYNAMIC_SETS: Final = frozenset({PINS4, PINS6, FLOWS, DENIED, DENIED_LOGGED, REDIRECTED4, REDIRECTED6})
"""Sets that packets or the gate fill; what they hold is nobody's drift."""

LOG_GROUP: Final = 1
"""The nflog group of denied packets. Groups belong to a namespace, so every instance has the same."""
LOG_PREFIX_DENIED: Final = "denied"
LOG_PREFIX_LIMIT: Final = "limit"

_LINKS_MAX: Final = 65_535
_PINS_MAX: Final = 1_048_576
"""256 pins for each of 4,096 devboxes; an element takes some 200 bytes of kernel memory."""
_REDIRECTED_MAX: Final = 131_072
"""Lookups at foreign servers that wait for their answer; they count as flows of their devbox as well."""

_TCP_OFFSETS: Final = range(5, 16)
"""Header lengths of TCP in words (RFC 9293 §3.1)."""


@dataclass(frozen=True, slots=True)
class RulesetOptions:
    """What the ruleset depends on besides layout and state.

    ``always_denied``: networks that nothing opens (``core.ranges.always_denied_networks()``); the devbox
    pools are added to them here.
    """

    always_denied: tuple[IPv4Network | IPv6Network, ...]
    flows_per_devbox_max: int = FLOWS_PER_DEVBOX_MAX
    has_tunnels: bool = False
    """Whether the gateway's web ports lead to the relay, which hands tunnels to their front."""


def host_members(addresses: Collection[IPAddress]) -> Mapping[str, tuple[IPAddress, ...]]:
    """The host's addresses by the set that closes them, in order.

    An IPv4 address is closed in the IPv6 forms that carry it as well (``core.decide`` unwraps them).
    """
    members: dict[str, set[IPAddress]] = {HOST4: set(), HOST6: set(), HOST6TO4: set()}
    for address in addresses:
        members[HOST4 if address.version == 4 else HOST6].add(address)
        if address.version == 4:
            for network in embedding_networks(IPv4Network(address)):
                is_single = network.prefixlen == network.max_prefixlen
                members[HOST6 if is_single else HOST6TO4].add(network.network_address)
    return {name: tuple(sorted(held, key=int)) for name, held in members.items()}


def cidr_map(number: int) -> str:
    """Name of a policy's map from (address, TCP or UDP, port) to grant."""
    return f"cidr_{number}"


def address_map(number: int) -> str:
    """Name of a policy's map from (address, other protocol) to grant."""
    return f"net_{number}"


def policy_chain(number: int) -> str:
    """Name of a policy's chain."""
    return f"policy_{number}"


def render_replacement(
    layout: NetworkLayout, options: RulesetOptions, state: RouterState, pins: Sequence[Pin] = ()
) -> str:
    """Commands that replace the whole table by ``state`` in one transaction, keeping ``pins``."""
    # The first line makes the second one work when there is no table yet.
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n{render_table(layout, options, state, pins)}"


def render_table(layout: NetworkLayout, options: RulesetOptions, state: RouterState, pins: Sequence[Pin] = ()) -> str:
    """The table, with every element."""
    plans = [state.plans[number] for number in sorted(state.plans)]
    parts = (
        *_render_sets(layout, options, state, pins),
        *(_render_policy(plan) for plan in plans),
        _render_devbox_policies(state),
        _render_chains(layout, options),
    )
    body = "\n".join(parts)
    return f"table inet {TABLE} {{\n{body}}}\n"


def render_new_policies(numbers: Iterable[int]) -> str:
    """Commands that add policies' maps and chains, still empty and used by nobody."""
    body = "\n".join(_render_policy(_empty_plan(number)) for number in sorted(numbers))
    return f"table inet {TABLE} {{\n{body}}}\n"


def render_removed_policies(numbers: Iterable[int]) -> str:
    """Commands that remove policies' chains and maps, which nobody uses any more."""
    lines: list[str] = []
    for number in sorted(numbers):
        lines.append(f"delete chain inet {TABLE} {policy_chain(number)}")
        lines += [f"delete map inet {TABLE} {name}" for name in (cidr_map(number), address_map(number))]
    return "".join(line + "\n" for line in lines)


def floor_networks(
    layout: NetworkLayout, options: RulesetOptions
) -> tuple[tuple[IPv4Network, ...], tuple[IPv6Network, ...]]:
    """The deny floor as disjoint networks: what is always denied, and the devbox pools (uplink included)."""
    floor4 = [network for network in options.always_denied if isinstance(network, IPv4Network)]
    floor6 = [network for network in options.always_denied if isinstance(network, IPv6Network)]
    return (
        tuple(collapse_addresses([*floor4, layout.pool4])),
        tuple(collapse_addresses([*floor6, layout.pool6, *embedding_networks(layout.pool4)])),
    )


def _empty_plan(number: int) -> PolicyPlan:
    return PolicyPlan(number, GRANT_ALL_BIT | number, frozenset(), (), ())


def _mark(value: int) -> str:
    return f"0x{value:08x}"


def _render_set(kind: str, name: str, attributes: Sequence[str], elements: Iterable[str] = ()) -> str:
    lines = [f"    {kind} {name} {{", *(f"        {attribute}" for attribute in attributes)]
    listed = list(elements)
    if listed:
        content = ",\n".join(f"            {element}" for element in listed)
        lines.append(f"        elements = {{\n{content}\n        }}")
    return "\n".join([*lines, "    }", ""])


def _render_sets(
    layout: NetworkLayout, options: RulesetOptions, state: RouterState, pins: Sequence[Pin]
) -> Iterable[str]:
    floor4, floor6 = floor_networks(layout, options)
    devboxes = sorted(state.devboxes.values(), key=lambda devbox: devbox.slot)
    hosts = host_members(state.host_addresses)
    live = sorted(frozenset[int]().union(*(plan.live for plan in state.plans.values())))
    yield _render_set("set", LIVE, ["type mark"], map(_mark, live))
    yield _render_set("set", FLOOR4, ["type ipv4_addr", "flags interval"], map(str, floor4))
    yield _render_set("set", FLOOR6, ["type ipv6_addr", "flags interval"], map(str, floor6))
    for name, family in ((SPECIAL4, 4), (SPECIAL6, 6)):
        spans = (_span(str(first), str(last)) for first, last in special_spans() if first.version == family)
        yield _render_set("set", name, [f"type ipv{family}_addr", "flags interval"], spans)
    for name in (HOST4, HOST6, HOST6TO4):
        kind = "type ipv4_addr" if name == HOST4 else "type ipv6_addr"
        yield _render_set("set", name, [kind], map(str, hosts[name]))
    sources4 = (f'"{devbox.link}" . {devbox.address4}' for devbox in devboxes)
    sources6 = (f'"{devbox.link}" . {devbox.address6}' for devbox in devboxes if devbox.address6 is not None)
    yield _render_set("set", SOURCE4, ["type ifname . ipv4_addr"], sources4)
    yield _render_set("set", SOURCE6, ["type ifname . ipv6_addr"], sources6)
    for name, family in ((PINS4, 4), (PINS6, 6)):
        attributes = [f"type ifname . ipv{family}_addr", f"size {_PINS_MAX}", "flags timeout"]
        yield _render_set("set", name, attributes, (_pin(pin) for pin in pins if pin.address.version == family))
    yield _render_set("set", FLOWS, ["type ifname", f"size {_LINKS_MAX}", "flags dynamic"])
    yield _render_set("set", DENIED, ["type ifname", f"size {_LINKS_MAX}", "flags dynamic", "counter"])
    timed = ["flags dynamic,timeout", "timeout 1m"]
    yield _render_set("set", DENIED_LOGGED, ["type ifname", f"size {_LINKS_MAX}", *timed])
    for name, family in ((REDIRECTED4, 4), (REDIRECTED6, 6)):
        key = f"type ipv{family}_addr . inet_proto . inet_service"
        yield _render_set("set", name, [key, f"size {_REDIRECTED_MAX}", *timed])


def _pin(pin: Pin) -> str:
    comment = encode_names(pin.names, has_more=pin.has_more_names, bytes_max=TEXT_COMMENT_BYTES_MAX)
    return f'"{pin.link}" . {pin.address} timeout {pin.remaining_ms}ms' + (f' comment "{comment}"' if comment else "")


def _render_policy(plan: PolicyPlan) -> str:
    number = plan.number
    ports = _render_set(
        "map",
        cidr_map(number),
        ["type ipv4_addr . inet_proto . inet_service : mark", "flags interval"],
        map(_port_cell, plan.port_cells),
    )
    others = _render_set(
        "map",
        address_map(number),
        ["type ipv4_addr . inet_proto : mark", "flags interval"],
        map(_address_cell, plan.address_cells),
    )
    chain = POLICY_CHAIN.substitute(
        chain=policy_chain(number),
        cidr=cidr_map(number),
        net=address_map(number),
        grant_all=_mark(GRANT_ALL_BIT | number),
        # No policy of a higher number only reports (core.compile refuses); zero is never live.
        grant_report=_mark(grant_of_report(number) if number <= REPORT_NUMBER_MAX else 0),
        forward_mark=_mark(FORWARD_MARK),
    )
    return f"{ports}\n{others}\n{chain}"


def _render_chains(layout: NetworkLayout, options: RulesetOptions) -> str:
    gateways = {"gateway4": layout.gateway4, "gateway6": layout.gateway6}
    return CHAINS.substitute(
        tunnels_judge=TUNNELS_JUDGE.substitute(gateways) if options.has_tunnels else "",
        tunnels_relay=TUNNELS_RELAY.substitute(gateways) if options.has_tunnels else "",
        gateway4=layout.gateway4,
        gateway6=layout.gateway6,
        relay_mark=_mark(layout.relay_mark),
        forward_mark=_mark(FORWARD_MARK),
        relay_port=layout.relay_port,
        flows_max=options.flows_per_devbox_max,
        bare_resets=_render_bare_resets(),
    )


def _render_bare_resets() -> str:
    # The data offset counts words of 4 bytes, so these are the lengths of segments without payload.
    lines = [f"        tcp doff {words} ip length {20 + 4 * words} goto last_reset" for words in _TCP_OFFSETS]
    lines += [
        f"        tcp doff {words} ip6 nexthdr tcp ip6 length {4 * words} goto last_reset" for words in _TCP_OFFSETS
    ]
    return "\n".join(lines)


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first}-{last}"


def _port_cell(cell: PortCell) -> str:
    addresses = _span(str(IPv4Address(cell.first)), str(IPv4Address(cell.last)))
    ports = _span(str(cell.port_first), str(cell.port_last))
    return f"{addresses} . {cell.protocol.name.lower()} . {ports} : {_mark(cell.grant)}"


def _address_cell(cell: AddressCell) -> str:
    return f"{_span(str(IPv4Address(cell.first)), str(IPv4Address(cell.last)))} . 0-255 : {_mark(cell.grant)}"


def _render_devbox_policies(state: RouterState) -> str:
    devboxes = sorted(state.devboxes.values(), key=lambda devbox: devbox.slot)
    jumps = (f'"{devbox.link}" : jump {policy_chain(devbox.policy_number)}' for devbox in devboxes)
    return _render_set("map", DEVBOX_POLICY, ["type ifname : verdict"], jumps)
