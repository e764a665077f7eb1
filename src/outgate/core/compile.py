"""Policy → enforcement plan: overlapping CIDR rules become disjoint cells, each with the grant of its rule.

The kernel's maps want disjoint keys, so "the first listed rule wins" is worked out here. Rules fall into two
families that never meet: rules for a network wholly inside a private, shared or reserved range open what of
that range is not always denied; all others open ordinary addresses only. Within a family networks nest like
brackets, so one sweep over them in order, with a stack of the ports that hold so far, finds every change.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from outgate.core.cidr_index import NetworkRules, group_rules
from outgate.core.endpoints import opened_endpoints
from outgate.core.ranges import open_spans
from outgate.core.segments import Segments, merge
from outgate.errors import InvalidValueError
from outgate.model.addresses import Protocol
from outgate.model.flow import HostContext
from outgate.model.plan import (
    ENDPOINTS_NUMBER_MAX,
    GRANT_FIRST,
    GRANT_LAST,
    REPORT_NUMBER_MAX,
    AddressCell,
    PolicyPlan,
    PortCell,
    grant_of_allow_all,
    grant_of_endpoints,
    grant_of_report,
)
from outgate.model.policy import CidrRule, EnforcementMode, NetworkPolicy

CELLS_MAX = 20_000
"""Cells a policy may have. One costs the kernel 1.9 µs to load (measured), so a whole plan stays under 40 ms
and the maps of a thousand policies within what a host can hold; 1,000 networks with 10 port ranges each fit."""
QUICK_RULES_MAX = 16
"""CIDR rules that compile in half a millisecond: a thread's turn takes longer. A thousand that overlap take seconds."""

_STEPS_MAX = 10 * CELLS_MAX
"""Port segments the sweep may visit: a bound on time (some 0.3 s) against rules that nest on purpose and
yield few cells. A policy that respects CELLS_MAX without such nesting stays below a tenth of it."""


_NO_ENDPOINTS = HostContext()


class PolicyTooComplexError(InvalidValueError):
    """The CIDR rules of a policy overlap in too many ways; the message says what to simplify."""

    code = "policy_too_complex"


class _Ports(NamedTuple):
    """What holds for some addresses: owners by port for TCP and UDP, and the owner of all other protocols."""

    tcp: Segments
    udp: Segments
    other: int | None


class _Stretch(NamedTuple):
    """Addresses ``first``..``last`` for which the same ``ports`` hold."""

    first: int
    last: int
    ports: _Ports


def compile_policy(policy: NetworkPolicy, grants: Sequence[int], context: HostContext = _NO_ENDPOINTS) -> PolicyPlan:
    """The kernel's part of ``policy``; ``grants`` are parallel to ``allowed_cidrs``.

    Of ``context`` only what is behind the policy's flags is read. Raises :class:`PolicyTooComplexError` above
    CELLS_MAX cells, and ValueError for grants that do not fit.
    """
    _check_grants(policy, grants)
    grant_all = grant_of_allow_all(policy.number)
    if policy.egress.allow_all:
        return PolicyPlan(policy.number, grant_all, frozenset({grant_all}), (), ())
    endpoints = _find_endpoints(policy, context)
    rules = (*policy.egress.allowed_cidrs, *(rule for rule, _ in endpoints))
    grants = (*grants, *(grant for _, grant in endpoints))
    if sum(len(rule.ports) for rule in rules) > CELLS_MAX:
        # Each range makes a cell unless another rule hides it; so many are refused before any work is done.
        raise _too_complex()
    groups = group_rules(rules)
    cells = _Cells(grants)
    for is_conditional in (False, True):
        family = [group for group in groups if group.is_conditional is is_conditional]
        for stretch in _sweep(family):
            for first, last in open_spans(stretch.first, stretch.last, conditional=is_conditional):
                cells.add(_Stretch(first, last, stretch.ports))
        cells.close()
    # A rule that others hide, or that the floor swallows, is in force all the same: its grant stays live.
    live = frozenset((*grants, *_find_report(policy)))
    return PolicyPlan(policy.number, grant_all, live, tuple(sorted(cells.ports)), tuple(sorted(cells.addresses)))


def _find_report(policy: NetworkPolicy) -> tuple[int, ...]:
    """The grant of what passes because the policy only reports, if it does."""
    if policy.enforcement is not EnforcementMode.REPORT_ONLY:
        return ()
    if policy.number > REPORT_NUMBER_MAX:
        message = f"A policy of number {policy.number} cannot only report; create a new store, or enforce it."
        raise InvalidValueError(message, field="enforcement")
    return (grant_of_report(policy.number),)


def _find_endpoints(policy: NetworkPolicy, context: HostContext) -> list[tuple[CidrRule, int]]:
    """The operator's networks behind the policy's flags, in their order, with their grants."""
    opened = [one for one in opened_endpoints(policy.egress, context) if one.cidrs]
    if opened and policy.number > ENDPOINTS_NUMBER_MAX:
        raise InvalidValueError(
            f"The networks behind {opened[0].field} cannot be opened for a policy of number {policy.number}; "
            "create a new store, or name hosts instead.",
            field=opened[0].field,
        )
    return [
        (rule, grant_of_endpoints(policy.number, one.position, context.endpoints_epoch))
        for one in opened
        for rule in one.cidrs
    ]


def _check_grants(policy: NetworkPolicy, grants: Sequence[int]) -> None:
    rules = len(policy.egress.allowed_cidrs)
    if len(grants) != rules:
        raise ValueError(f"{len(grants)} grants for {rules} CIDR rules of policy {policy.id}")
    for grant in grants:
        if not GRANT_FIRST <= grant <= GRANT_LAST:
            raise ValueError(f"grant {grant} of policy {policy.id} lies outside {GRANT_FIRST}..{GRANT_LAST}")


def _sweep(family: Sequence[NetworkRules]) -> Iterator[_Stretch]:
    """The stretches of addresses between changes, in order. Addresses that no network holds are left out."""
    position = 0
    steps = 0
    stack: list[_Stretch] = []
    by_start = sorted(family, key=lambda group: (int(group.network.network_address), group.network.prefixlen))
    for group in by_start:
        first, last = int(group.network.network_address), int(group.network.broadcast_address)
        while stack and stack[-1].last < first:
            done = stack.pop()
            yield _Stretch(position, done.last, done.ports)
            position = done.last + 1
        if stack:
            yield _Stretch(position, first - 1, stack[-1].ports)
        position = first
        outer = stack[-1].ports if stack else _Ports((), (), None)
        ports = _merge(outer, group)
        steps += len(ports.tcp) + len(ports.udp) + len(outer.tcp) + len(outer.udp)
        if steps > _STEPS_MAX:
            raise _too_complex()
        stack.append(_Stretch(first, last, ports))
    while stack:
        done = stack.pop()
        yield _Stretch(position, done.last, done.ports)
        position = done.last + 1


def _merge(outer: _Ports, group: NetworkRules) -> _Ports:
    tcp, udp = merge(outer.tcp, group.tcp), merge(outer.udp, group.udp)
    others = [owner for owner in (outer.other, group.unrestricted) if owner is not None]
    return _Ports(tcp, udp, min(others, default=None))


@dataclass(slots=True)
class _Cells:
    """Collects stretches in order and joins neighbours that agree."""

    grants: Sequence[int]
    ports: list[PortCell] = field(default_factory=list)
    addresses: list[AddressCell] = field(default_factory=list)
    _open_ports: dict[tuple[Protocol, int, int, int], int] = field(default_factory=dict)
    """What runs on at the end so far: (protocol, first port, last port, grant) → first address."""
    _open_other: tuple[int, int] | None = None
    """Likewise for other protocols: (grant, first address)."""
    _end: int = -1

    def add(self, stretch: _Stretch) -> None:
        """Take one more stretch; it lies behind all that came before. An empty one is nothing."""
        if stretch.first > stretch.last:
            return
        if stretch.first != self._end + 1:
            self.close()
        self._continue_ports(stretch)
        self._continue_other(stretch)
        self._end = stretch.last
        if len(self.ports) + len(self.addresses) + len(self._open_ports) > CELLS_MAX:
            raise _too_complex()

    def _continue_ports(self, stretch: _Stretch) -> None:
        wanted = {
            (protocol, span.first, span.last, self.grants[span.owner])
            for protocol, spans in ((Protocol.TCP, stretch.ports.tcp), (Protocol.UDP, stretch.ports.udp))
            for span in spans
        }
        for key in self._open_ports.keys() - wanted:
            self._close_port(key)
        for key in wanted:
            self._open_ports.setdefault(key, stretch.first)

    def _close_port(self, key: tuple[Protocol, int, int, int]) -> None:
        protocol, port_first, port_last, grant = key
        self.ports.append(PortCell(self._open_ports.pop(key), self._end, protocol, port_first, port_last, grant))

    def _continue_other(self, stretch: _Stretch) -> None:
        owner = stretch.ports.other
        grant = None if owner is None else self.grants[owner]
        if self._open_other is not None and self._open_other[0] != grant:
            self._close_other(self._open_other)
        if grant is not None and self._open_other is None:
            self._open_other = (grant, stretch.first)

    def _close_other(self, running: tuple[int, int]) -> None:
        grant, first = running
        self.addresses.append(AddressCell(first, self._end, grant))
        self._open_other = None

    def close(self) -> None:
        """Nothing of what follows joins what is there."""
        for key in list(self._open_ports):
            self._close_port(key)
        if self._open_other is not None:
            self._close_other(self._open_other)


def _too_complex() -> PolicyTooComplexError:
    return PolicyTooComplexError(
        f"The CIDR rules overlap in more ways than the kernel can be given ({CELLS_MAX:,} entries); "
        "list fewer networks or port ranges, or join them.",
        field="allowed_cidrs",
    )
