"""What an update of a policy would change, judged by what its devboxes did lately. Nothing is changed."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.judgement import Check, Target, decisive, judge
from outgate.control.policy_documents import decode_policy, finish_merge, merge_change
from outgate.control.policy_input import PolicyInput, check_complexity, parse_policy_input
from outgate.control.policy_reading import read_live_policy
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.core.decide import PreparedPolicy, prepare_policy
from outgate.core.documents import policy_from_document
from outgate.errors import InvalidValueError
from outgate.model.addresses import Protocol
from outgate.model.desired import PolicyDocument
from outgate.model.flow import HostContext
from outgate.model.names import parse_domain_name
from outgate.model.plan import GRANT_FIRST
from outgate.model.verdict import Deny
from outgate.store.flows import FlowFilter, FlowGroup, group_decisions

GROUPS_MAX: Final = 10_000
"""Kinds of decision that are judged anew: the most frequent ones, in about a second."""
_HOUR_MS: Final = 3_600_000
_TCP_NAMES: Final = frozenset({"", "tcp", "tls", "http"})
_LOOKUP_PORT: Final = 443
"""A lookup is judged as the beginning of what it is usually for."""


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of decision that would turn out otherwise."""

    seen: FlowGroup
    was: Check
    becomes: Check


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would change. ``judged`` counts the decisions looked at, ``undecided`` those that cannot be judged anew:
    what was allowed by an address that a lookup taught, without a name in it. ``is_partial``: there were more kinds
    than are looked at.
    """

    policy_id: str
    revision: int
    since_ms: int
    judged: int
    undecided: int
    opened: tuple[Change, ...]
    closed: tuple[Change, ...]
    is_partial: bool


async def simulate(
    services: Services, caller: Caller, policy_id: str, given: PolicyInput, *, hours: int, now_ms: int
) -> Simulation:
    """What the update ``given`` would have changed in the last ``hours``. Raises InvalidValueError, NotFoundError."""
    change = parse_policy_input(given)
    since_ms = now_ms - hours * _HOUR_MS

    def read(tx: Connection) -> tuple[PolicyDocument, list[FlowGroup]]:
        policy = read_live_policy(tx, caller, policy_id)
        wanted = FlowFilter(policy_id=policy.id, since_ms=since_ms)
        groups = group_decisions(tx, caller.account_id, wanted, limit=GROUPS_MAX + 1)
        return decode_policy(policy.document), groups

    document, groups = await read_as(services, caller, read)
    # Nothing is enforced by the new rules' grants; they only have to be nobody else's.
    taken = max((rule.grant for rule in document.allowed_cidrs), default=GRANT_FIRST)
    proposed = finish_merge(merge_change(document, change), grant_first=taken + 1)
    context = services.settings.context

    def compare() -> Simulation:
        check_complexity(change.allowed_cidrs or (), context)
        was, becomes = (prepare_policy(policy_from_document(each)[0], context) for each in (document, proposed))
        comparison = _Comparison(was, becomes, caller.account_id, context)
        for seen in groups[:GROUPS_MAX]:
            comparison.add(seen)
        return Simulation(
            document.id,
            document.revision,
            since_ms,
            comparison.judged,
            comparison.undecided,
            tuple(comparison.opened),
            tuple(comparison.closed),
            is_partial=len(groups) > GROUPS_MAX,
        )

    return await asyncio.to_thread(compare)


@dataclass(slots=True)
class _Comparison:
    was: PreparedPolicy
    becomes: PreparedPolicy
    account_id: str
    context: HostContext
    judged: int = 0
    undecided: int = 0
    opened: list[Change] = field(default_factory=list)
    closed: list[Change] = field(default_factory=list)

    def add(self, seen: FlowGroup) -> None:
        self.judged += seen.count
        target = find_target(seen.name, seen.address, seen.port, seen.protocol)
        if target is None:
            # No host name: whatever the rules are, none covers it.
            return
        was, becomes = self._judge(self.was, target), self._judge(self.becomes, target)
        if _is_denied(was) and seen.verdict != "deny":
            self.undecided += seen.count
        elif _is_denied(was) != _is_denied(becomes):
            (self.closed if _is_denied(becomes) else self.opened).append(Change(seen, was, becomes))

    def _judge(self, policy: PreparedPolicy, target: Target) -> Check:
        return decisive(judge(policy, target, self.account_id, self.context))


def _is_denied(check: Check) -> bool:
    return isinstance(check.verdict, Deny)


def find_target(name: str, address: str, port: int, protocol: str) -> Target | None:
    """What a record tells of, or None when it has no name that a rule could cover, and no address.

    A lookup is told as the beginning of what it is usually for.
    """
    is_lookup = not address and not port
    try:
        host = parse_domain_name(name) if name else None
        target = ip_address(address) if address else None
    except (InvalidValueError, ValueError):
        return None
    number = next(_protocols(protocol), None)
    if number is None or (host is None and target is None):
        return None
    return Target(host, target, _LOOKUP_PORT if is_lookup else port or None, number)


def _protocols(text: str) -> Iterator[int]:
    if text in _TCP_NAMES:
        yield Protocol.TCP
    elif text.isascii() and text.isdigit():
        yield int(text)
    else:
        yield from (protocol for protocol in Protocol if protocol.name.lower() == text)
