"""What a policy should allow, by what its devboxes did lately. Nothing is changed."""

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.ids import IdPrefix, is_id
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import read_live_policy
from outgate.control.public_suffixes import is_shared
from outgate.control.services import Services
from outgate.control.simulation import find_target
from outgate.control.transactions import read_as
from outgate.core.advice import Advice, advise_policy
from outgate.core.decide import prepare_policy
from outgate.core.documents import document_from_policy, policy_from_document
from outgate.core.seen import Seen
from outgate.core.suggest import AllowList, Suggestion, suggest
from outgate.errors import InvalidValueError
from outgate.model.desired import CidrDocument, PolicyDocument
from outgate.model.names import HostPattern
from outgate.model.policy import CIDRS_MAX, HOSTNAMES_MAX, CidrRule, EgressRules, NetworkPolicy
from outgate.store.flows import DevboxGroup, FlowFilter, group_by_devbox

GROUPS_MAX: Final = 20_000
"""Kinds of record that are read: the most frequent ones, in about a second."""
DEVBOXES_MAX: Final = 100
_HOUR_MS: Final = 3_600_000
_DENY: Final = "deny"
_GRANT_NONE: Final = 0


@dataclass(frozen=True, slots=True)
class SuggestionRequest:
    """Which records count: since ``since_ms`` (Unix), else of the last ``hours``; of ``devbox_ids``, if there are any.

    ``include_denied``: whether what was denied is to be allowed, too. What was reported always is.
    """

    hours: int = 24
    since_ms: int | None = None
    devbox_ids: tuple[str, ...] = ()
    include_denied: bool = True


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The list by itself, and ``proposed_*``: the policy's own entries with what they lack of it, for an update.

    ``judged`` decisions were looked at. ``is_partial``: there were more kinds of record than are read.
    ``advice``: what to think twice about in the policy as it is, and in what was seen.
    """

    policy_id: str
    revision: int
    since_ms: int
    judged: int
    is_partial: bool
    found: AllowList
    advice: tuple[Advice, ...]
    proposed_hostnames: tuple[str, ...]
    proposed_cidrs: tuple[CidrDocument, ...]


async def suggest_policy(
    services: Services, caller: Caller, policy_id: str, request: SuggestionRequest, *, now_ms: int
) -> Suggestions:
    """What the policy should allow. Raises InvalidValueError, NotFoundError."""
    since_ms = now_ms - request.hours * _HOUR_MS if request.since_ms is None else request.since_ms
    _check_devboxes(request.devbox_ids)

    def read(tx: Connection) -> tuple[PolicyDocument, list[DevboxGroup]]:
        policy = read_live_policy(tx, caller, policy_id)
        wanted = FlowFilter(policy_id=policy.id, since_ms=since_ms)
        groups = group_by_devbox(tx, caller.account_id, wanted, devbox_ids=request.devbox_ids, limit=GROUPS_MAX + 1)
        return decode_policy(policy.document), groups

    document, groups = await read_as(services, caller, read)

    def find() -> Suggestions:
        policy, _ = policy_from_document(document)
        context = services.settings.context
        seen = tuple(_seen(groups[:GROUPS_MAX], include_denied=request.include_denied))
        found = suggest(seen, prepare_policy(policy, context), context, is_shared)
        return Suggestions(
            policy.id,
            policy.revision,
            since_ms,
            judged=sum(one.count for one in seen),
            is_partial=len(groups) > GROUPS_MAX,
            found=found,
            advice=(*advise_policy(policy, is_shared), *found.advice),
            proposed_hostnames=_propose_hostnames(document, found),
            proposed_cidrs=_propose_cidrs(document, found),
        )

    return await asyncio.to_thread(find)


def _check_devboxes(devbox_ids: tuple[str, ...]) -> None:
    if len(devbox_ids) > DEVBOXES_MAX:
        message = f"devbox_ids has {len(devbox_ids):,} entries; it takes at most {DEVBOXES_MAX}."
        raise InvalidValueError(message, field="devbox_ids", code="too_many_entries")
    for index, devbox_id in enumerate(devbox_ids):
        if not is_id(IdPrefix.DEVBOX, devbox_id) and not is_id(IdPrefix.BLUEPRINT, devbox_id):
            message = f"{devbox_id[:80]!r} is the id of no devbox and of no build."
            raise InvalidValueError(message, field=f"devbox_ids[{index}]")


def _seen(groups: Iterable[DevboxGroup], *, include_denied: bool) -> Iterator[Seen]:
    """What the records tell. Where a decision and its finished flow are both on record, it counts once."""
    merged: dict[tuple[object, ...], Seen] = {}
    for group in groups:
        if group.verdict == _DENY and not include_denied:
            continue
        target = find_target(group.name, group.address, group.port, group.protocol)
        if target is None:
            continue
        is_lookup = not group.address and not group.port
        one = Seen(
            name=target.name,
            address=target.address,
            port=target.port,
            protocol=target.protocol,
            is_lookup=is_lookup,
            verdict=group.verdict,
            reason=group.reason,
            devbox_id=group.devbox_id,
            count=group.count,
            first_ms=group.first_ms,
            last_ms=group.last_ms,
        )
        key = tuple(getattr(group, name) for name in _KIND)
        merged[key] = one if key not in merged else _merge(merged[key], one)
    yield from merged.values()


_KIND: Final = ("devbox_id", "name", "address", "port", "protocol", "point", "verdict", "reason")


def _merge(decided: Seen, finished: Seen) -> Seen:
    return replace(
        decided,
        count=max(decided.count, finished.count),
        first_ms=min(decided.first_ms, finished.first_ms),
        last_ms=max(decided.last_ms, finished.last_ms),
    )


def _propose_hostnames(document: PolicyDocument, found: AllowList) -> tuple[str, ...]:
    lacking = (one.entry.spelling for one in _lacking(found.hostnames) if isinstance(one.entry, HostPattern))
    return (*document.allowed_hostnames, *lacking)[: max(HOSTNAMES_MAX, len(document.allowed_hostnames))]


def _propose_cidrs(document: PolicyDocument, found: AllowList) -> tuple[CidrDocument, ...]:
    lacking = [one.entry for one in _lacking(found.cidrs) if isinstance(one.entry, CidrRule)]
    own = tuple(msgspec.structs.replace(rule, grant=_GRANT_NONE) for rule in document.allowed_cidrs)
    return (*own, *render_rules(lacking))[: max(CIDRS_MAX, len(own))]


def render_rules(rules: Iterable[CidrRule]) -> tuple[CidrDocument, ...]:
    """Rules as documents, without grants."""
    rules = tuple(rules)
    policy = NetworkPolicy(id="", name="", number=0, revision=1, egress=EgressRules(allowed_cidrs=rules))
    return document_from_policy(policy, [_GRANT_NONE] * len(rules)).allowed_cidrs


def _lacking(suggestions: Iterable[Suggestion]) -> Iterator[Suggestion]:
    return (one for one in suggestions if not one.is_covered)
