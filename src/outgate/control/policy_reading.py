"""Network policies: get, list, and the history of one."""

from dataclasses import dataclass

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.ids import IdPrefix, is_id
from outgate.control.policies import policy_not_found
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.store.policies import (
    PolicyFilter,
    PolicyRow,
    RevisionRow,
    count_listed,
    find_policy,
    list_policies,
    list_revisions,
)


@dataclass(frozen=True, slots=True)
class PolicyPage:
    """One page of a list. ``total_count`` counts all pages, or is None when it was not asked for."""

    policies: tuple[PolicyRow, ...]
    has_more: bool
    total_count: int | None


@dataclass(frozen=True, slots=True)
class RevisionPage:
    """One page of a policy's history."""

    revisions: tuple[RevisionRow, ...]
    has_more: bool


async def get_policy(services: Services, caller: Caller, policy_id: str) -> PolicyRow:
    """The caller's policy. Raises NotFoundError."""
    return await read_as(services, caller, lambda tx: read_live_policy(tx, caller, policy_id))


def read_live_policy(tx: Connection, caller: Caller, policy_id: str) -> PolicyRow:
    """The caller's policy, inside a transaction. Raises NotFoundError."""
    policy = find_policy(tx, caller.account_id, policy_id) if is_id(IdPrefix.POLICY, policy_id) else None
    if policy is None or policy.delete_time_ms is not None:
        raise policy_not_found(policy_id)
    return policy


async def page_policies(
    services: Services, caller: Caller, wanted: PolicyFilter, *, limit: int, count_total: bool
) -> PolicyPage:
    """At most ``limit`` of the caller's policies, newest first, from after ``wanted.before`` on."""

    def read(tx: Connection) -> PolicyPage:
        rows = list_policies(tx, caller.account_id, wanted, limit=limit + 1)
        total = count_listed(tx, caller.account_id, wanted) if count_total else None
        return PolicyPage(tuple(rows[:limit]), len(rows) > limit, total)

    return await read_as(services, caller, read)


async def page_revisions(
    services: Services, caller: Caller, policy_id: str, *, before: int | None, limit: int
) -> RevisionPage:
    """What the policy said when, newest first. Raises NotFoundError."""

    def read(tx: Connection) -> RevisionPage:
        policy = read_live_policy(tx, caller, policy_id)
        rows = list_revisions(tx, caller.account_id, policy.id, before=before, limit=limit + 1)
        return RevisionPage(tuple(rows[:limit]), len(rows) > limit)

    return await read_as(services, caller, read)
