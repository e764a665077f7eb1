"""The smallest readable allow list that covers what was seen, with its evidence. Pure.

Host names come first, since a name says what is meant: exact ones, and a wildcard where at least
:data:`SIBLINGS_MIN` names share a parent whose names all belong to one owner. Addresses are for what has no name:
as they are, or as the smallest network around several of one /24 that were asked for the same.

What no list can or should cover is *left out*, with the reason. Names that look as if they carried data to whoever
answers for their zone are left out, too: a list that covered them would be the hole.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Final

from outgate.core.advice import Advice, AdviceCode, SharedCheck, advise_pattern
from outgate.core.channels import parents_of
from outgate.core.coded_names import find_coded_zones
from outgate.core.decide import DNS_OVER_TLS_PORT, floor_class
from outgate.core.prepared import PreparedPolicy
from outgate.core.ranges import ALWAYS_DENIED, classify, normalise_address
from outgate.core.seen import Seen
from outgate.core.seen_networks import gather_networks
from outgate.model.addresses import IPAddress, Protocol
from outgate.model.flow import HostContext
from outgate.model.names import DomainName, HostPattern
from outgate.model.policy import CIDRS_MAX, HOSTNAMES_MAX, CidrRule
from outgate.model.tunnels import is_below_tunnel_domain
from outgate.model.verdict import DenyReason, RuleRef

SIBLINGS_MIN: Final = 4
"""Names below one parent that are told as a wildcard. Three more lines are still read; ten are not."""
EXAMPLES_MAX: Final = 5
_QUIC_PORT: Final = 443
_UNNAMED: Final = frozenset(
    {
        DenyReason.NOT_WEB,
        DenyReason.NO_NAME,
        DenyReason.NO_HANDSHAKE,
        DenyReason.BAD_HANDSHAKE,
        DenyReason.HANDSHAKE_TOO_LONG,
        DenyReason.HANDSHAKE_TIMEOUT,
    }
)
"""What host name rules do not let pass whatever they list: only the address can be allowed."""


class LeftOutReason(StrEnum):
    """Why something that was seen is on no list."""

    FLOOR = "floor"
    """The deny floor stops it, whatever a policy says."""
    TUNNEL = "tunnel"
    """Devboxes reach each other by ``allow_devbox_to_devbox``."""
    IPV6_ADDRESS = "ipv6_address"
    """No rule speaks of IPv6 addresses: connect by name."""
    QUIC = "quic"
    """HTTP/3 to a host that is on the list by its name: clients fall back to TCP."""
    DNS_TUNNEL = "dns_tunnel"
    """Names that look as if they carried data."""
    TOO_MANY = "too_many"
    """The list is full; this was seen least."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an entry rests on. ``counts`` by verdict; ``names`` and ``examples`` are the most frequent ones."""

    count: int
    counts: Mapping[str, int]
    devbox_ids: tuple[str, ...]
    first_ms: int
    last_ms: int
    name_count: int
    names: tuple[str, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One entry. ``is_covered``: the policy's own rules allow all of it already."""

    entry: HostPattern | CidrRule
    is_covered: bool
    evidence: Evidence
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that was seen and no entry covers, and why not."""

    what: str
    reason: LeftOutReason
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class AllowList:
    """The entries, hosts before networks, most frequent first; what is left out; what of the policy nothing used."""

    hostnames: tuple[Suggestion, ...]
    cidrs: tuple[Suggestion, ...]
    left_out: tuple[LeftOut, ...]
    unused: tuple[RuleRef, ...]
    advice: tuple[Advice, ...]


def suggest(seen: Sequence[Seen], policy: PreparedPolicy, context: HostContext, is_shared: SharedCheck) -> AllowList:
    """The list that covers all of ``seen`` but what is left out.

    What the policy's flags open needs no entry. ``context`` as for decisions.
    """
    sorted_out = _sort_out(seen, policy, context)
    coded = find_coded_zones(_lookups_only(sorted_out.by_name), is_shared)
    carrying = {name: zone for name in sorted_out.by_name if (zone := _zone_of(name, coded)) is not None}
    plain = {name: rows for name, rows in sorted_out.by_name.items() if name not in carrying}
    hosts = [_suggest_host(pattern, rows, policy, is_shared) for pattern, rows in _gather_hosts(plain, is_shared)]
    cidrs = [_suggest_cidr(rule, rows, policy) for rule, rows in gather_networks(sorted_out.by_address)]
    hosts.sort(key=lambda one: -one.evidence.count)
    cidrs.sort(key=lambda one: -one.evidence.count)
    excess = (*hosts[HOSTNAMES_MAX:], *cidrs[CIDRS_MAX:])
    left_out = [
        *sorted_out.left_out(),
        *(_left_out_zone(zone, carrying, sorted_out.by_name) for zone in coded),
        *(LeftOut(str(one.entry), LeftOutReason.TOO_MANY, one.evidence) for one in excess),
    ]
    advice = tuple(_advise_zone(zone, carrying) for zone in coded)
    unused = tuple(_find_unused(seen, policy))
    return AllowList(tuple(hosts[:HOSTNAMES_MAX]), tuple(cidrs[:CIDRS_MAX]), tuple(left_out), unused, advice)


# What was seen, by what could cover it


@dataclass(slots=True)
class _SortedOut:
    by_name: dict[DomainName, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    by_address: dict[IPv4Address, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    others: dict[tuple[LeftOutReason, str], list[Seen]] = field(default_factory=lambda: defaultdict(list))

    def left_out(self) -> Iterator[LeftOut]:
        for (reason, what), rows in self.others.items():
            yield LeftOut(what, reason, _weigh(rows))


def _sort_out(seen: Iterable[Seen], policy: PreparedPolicy, context: HostContext) -> _SortedOut:
    sorted_out = _SortedOut()
    seen = tuple(seen)
    named = {one.address for one in seen if one.name is not None and one.address is not None}
    for one in seen:
        reason = _reason_to_leave_out(one, named, context)
        if reason is not None:
            sorted_out.others[reason, _show(one)].append(one)
            continue
        is_by_name = _is_by_name(one)
        if is_by_name and one.name is not None and not _is_behind_flag(policy, one.name):
            sorted_out.by_name[one.name].append(one)
        address = None if one.address is None else normalise_address(one.address)
        if isinstance(address, IPv4Address) and not _is_address_behind_flag(policy, one, address):
            is_private = classify(address) is not None and not _is_in_zone(one.name, context)
            if is_private or not is_by_name:
                sorted_out.by_address[address].append(one)
    return sorted_out


def _reason_to_leave_out(one: Seen, named: Collection[IPAddress], context: HostContext) -> LeftOutReason | None:
    if one.name is not None and is_below_tunnel_domain(one.name, context.tunnel_domain):
        return LeftOutReason.TUNNEL
    floor = None if one.address is None else floor_class(normalise_address(one.address), context)
    if floor in ALWAYS_DENIED or one.reason in ALWAYS_DENIED:
        return LeftOutReason.FLOOR
    if one.address is None:
        return None
    if _is_by_name(one) and (not _is_private6(one.address) or _is_in_zone(one.name, context)):
        return None
    if one.address in named and (one.protocol, one.port) == (Protocol.UDP, _QUIC_PORT):
        return LeftOutReason.QUIC
    return None if isinstance(normalise_address(one.address), IPv4Address) else LeftOutReason.IPV6_ADDRESS


def _is_private6(address: IPAddress) -> bool:
    return not isinstance(normalise_address(address), IPv4Address) and classify(address) is not None


def _is_by_name(one: Seen) -> bool:
    """Whether a host name rule lets it pass."""
    is_named_tcp = one.name is not None and one.protocol == Protocol.TCP and one.port != DNS_OVER_TLS_PORT
    return one.is_lookup or (is_named_tcp and one.reason not in _UNNAMED)


def _is_behind_flag(policy: PreparedPolicy, name: DomainName) -> bool:
    rule = policy.find_host_rule(name)
    return rule is not None and rule.allow.rule.field != "allowed_hostnames"


def _is_address_behind_flag(policy: PreparedPolicy, one: Seen, address: IPv4Address) -> bool:
    place = _find_cidr(policy, one, address)
    return place is not None and place >= len(policy.policy.egress.allowed_cidrs)


def _find_cidr(policy: PreparedPolicy, one: Seen, address: IPv4Address) -> int | None:
    is_conditional = classify(address) is not None
    return policy.cidr_index.find(int(address), one.protocol, one.port, is_conditional=is_conditional)


def _is_in_zone(name: DomainName | None, context: HostContext) -> bool:
    return name is not None and any(name == zone or name.endswith(f".{zone}") for zone in context.internal_zones)


# Host names


def _lookups_only(by_name: Mapping[DomainName, Sequence[Seen]]) -> dict[DomainName, int]:
    """Names that were asked for and never connected to, with how often."""
    return {
        name: sum(one.count for one in rows) for name, rows in by_name.items() if all(one.is_lookup for one in rows)
    }


def _zone_of(name: DomainName, zones: Collection[DomainName]) -> DomainName | None:
    return next((DomainName(parent) for parent in parents_of(name) if parent in zones), None)


def _gather_hosts(
    by_name: Mapping[DomainName, list[Seen]], is_shared: SharedCheck
) -> list[tuple[HostPattern, list[Seen]]]:
    siblings: dict[str, int] = defaultdict(int)
    for name in by_name:
        siblings[name.partition(".")[2]] += 1
    broad = {
        DomainName(parent)
        for parent, count in siblings.items()
        if parent and count >= SIBLINGS_MIN and not is_shared(parent)
    }
    # One wildcard covers every depth: of nested ones the outermost stays.
    broad = {parent for parent in broad if _zone_of(parent, broad) is None}
    gathered: dict[HostPattern, list[Seen]] = defaultdict(list)
    for name, rows in by_name.items():
        parent = _zone_of(name, broad)
        pattern = HostPattern(name, False, name) if parent is None else HostPattern(parent, True, f"*.{parent}")
        gathered[pattern] += rows
    return sorted(gathered.items(), key=lambda item: item[0].spelling)


def _suggest_host(
    pattern: HostPattern, rows: Sequence[Seen], policy: PreparedPolicy, is_shared: SharedCheck
) -> Suggestion:
    # No exact entry is called so; a wildcard over the name, or over a parent, covers it.
    asked = DomainName(f"*.{pattern.name}") if pattern.is_wildcard else pattern.name
    advice = tuple(advise_pattern(pattern, "allowed_hostnames", is_shared))
    return Suggestion(pattern, policy.find_host_rule(asked) is not None, _weigh(rows), advice)


def _left_out_zone(
    zone: DomainName, carrying: Mapping[DomainName, DomainName], by_name: Mapping[DomainName, Sequence[Seen]]
) -> LeftOut:
    rows = [one for name, of_zone in carrying.items() if of_zone == zone for one in by_name[name]]
    return LeftOut(f"*.{zone}", LeftOutReason.DNS_TUNNEL, _weigh(rows))


def _advise_zone(zone: DomainName, carrying: Mapping[DomainName, DomainName]) -> Advice:
    count = sum(of_zone == zone for of_zone in carrying.values())
    text = (
        f"{count} names below {zone} were asked for and hardly one twice, which is how data is carried in lookups: "
        "none of them is suggested. Look at what asks for them."
    )
    return Advice(AdviceCode.DNS_TUNNEL, "allowed_hostnames", text)


# Networks


def _suggest_cidr(rule: CidrRule, rows: Sequence[Seen], policy: PreparedPolicy) -> Suggestion:
    is_covered = all(_find_cidr(policy, one, IPv4Address(int(one.address or 0))) is not None for one in rows)
    return Suggestion(rule, is_covered, _weigh(rows))


# Evidence


def _weigh(rows: Sequence[Seen]) -> Evidence:
    names: dict[str, int] = defaultdict(int)
    places: dict[str, int] = defaultdict(int)
    counts: dict[str, int] = defaultdict(int)
    for one in rows:
        counts[one.verdict] += one.count
        places[_show(one)] += one.count
        if one.name is not None:
            names[one.name] += one.count
    return Evidence(
        count=sum(counts.values()),
        counts=dict(counts),
        devbox_ids=tuple(sorted({one.devbox_id for one in rows})),
        first_ms=min(one.first_ms for one in rows),
        last_ms=max(one.last_ms for one in rows),
        name_count=len(names),
        names=_most_frequent(names),
        examples=_most_frequent(places),
    )


def _most_frequent(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda text: (-counts[text], text))[:EXAMPLES_MAX])


def _show(one: Seen) -> str:
    """``lookup github.com``, ``TCP github.com:443``, ``UDP 192.0.2.1:53``."""
    if one.is_lookup:
        return f"lookup {one.name}"
    known = {protocol.value: protocol.name for protocol in Protocol}
    what = known.get(Protocol(one.protocol).value, "") if one.protocol in known else f"IP protocol {one.protocol}"
    place = one.name if one.name is not None else str(one.address)
    return f"{what} {place}" if one.port is None else f"{what} {place}:{one.port}"


def _find_unused(seen: Iterable[Seen], policy: PreparedPolicy) -> Iterator[RuleRef]:
    used: set[tuple[str, int | None]] = set()
    for one in seen:
        rule = None if one.name is None else policy.find_host_rule(one.name)
        if rule is not None:
            used.add((rule.allow.rule.field, rule.allow.rule.index))
        address = None if one.address is None else normalise_address(one.address)
        place = _find_cidr(policy, one, address) if isinstance(address, IPv4Address) else None
        if place is not None:
            used.add((policy.cidr_allows[place].rule.field, policy.cidr_allows[place].rule.index))
    refs = (*(rule.allow.rule for rule in policy.host_rules), *(allow.rule for allow in policy.cidr_allows))
    return (ref for ref in refs if ref.index is not None and (ref.field, ref.index) not in used)
