"""Network policies: create, update, delete. (Reading them is in ``policy_reading``.)"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.dependents import Dependents, refuse_while_used
from outgate.control.enforcement import Enforcement, await_enforcement
from outgate.control.errors import ConflictError, NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.policy_documents import decode_policy, encode_policy, finish_merge, merge_change
from outgate.control.policy_input import PolicyChange, PolicyInput, check_complexity, parse_policy_input
from outgate.control.repeats import claim, claim_new, unless_deleted
from outgate.control.services import Services
from outgate.control.transactions import write_as
from outgate.control.wakeups import Subject, Topic
from outgate.core.compile import QUICK_RULES_MAX
from outgate.errors import InvalidValueError
from outgate.model.desired import PolicyDocument
from outgate.store.blueprints import count_running_by_host, list_policy_users
from outgate.store.devboxes import count_live_by_host, list_live_users
from outgate.store.policies import (
    PolicyRow,
    advance_policy,
    count_policies,
    find_policy,
    find_policy_id_by_name,
    find_policy_locked,
    insert_policy,
    lock_account,
    mark_policy_deleted,
)
from outgate.store.sequence import take_numbers


@dataclass(frozen=True, slots=True)
class Updated:
    """An updated policy, and how far its update was in force when the response was sent."""

    policy: PolicyRow
    enforcement: Enforcement


@dataclass(frozen=True, slots=True)
class _Committed:
    policy: PolicyRow
    devboxes_by_host: Mapping[str, int]


async def create_policy(services: Services, call: Call, given: PolicyInput) -> PolicyRow:
    """A new policy of the caller's account.

    Raises InvalidValueError (also at the account's limit) and ConflictError for a name that is taken.
    """
    change = parse_policy_input(given)
    if change.name is None:
        raise InvalidValueError("A policy needs a name.", field="name")
    await _check_complexity_aside(services, change)
    name = change.name
    return await write_as(services, call.caller, lambda tx: _create(tx, services, call, name, change))


def _create(tx: Connection, services: Services, call: Call, name: str, change: PolicyChange) -> PolicyRow:
    policy_id = services.ids.make(IdPrefix.POLICY, call.now_ms)
    known = claim_new(
        tx, call.request, policy_id, call.now_ms, lambda made: unless_deleted(find_policy(tx, call.account_id, made))
    )
    if known is not None:
        return known
    lock_account(tx, call.account_id)
    _check_limit(tx, call, services.settings.policies_max)
    _check_name(tx, call, name)
    merge = merge_change(PolicyDocument(id=policy_id, name=name, number=0, revision=1), change)
    numbers = take_numbers(tx, grants=len(merge.new_rules), policy_numbers=1)
    document = finish_merge(merge, grant_first=numbers.grant_first)
    document = msgspec.structs.replace(document, number=numbers.policy_number_first)
    policy = PolicyRow(
        id=policy_id,
        account_id=call.account_id,
        name=name,
        number=document.number,
        revision=1,
        create_time_ms=call.now_ms,
        update_time_ms=call.now_ms,
        delete_time_ms=None,
        seq=numbers.seq,
        description=change.description,
        document=encode_policy(document),
        enforcement=document.enforcement,
    )
    insert_policy(tx, policy, key_id=call.key_id)
    return policy


async def update_policy(services: Services, call: Call, policy_id: str, given: PolicyInput) -> Updated:
    """Change the given fields of a policy, and wait (bounded) until every host enforces it.

    Raises InvalidValueError, NotFoundError, and ConflictError for a name that is taken.
    """
    return await apply_change(services, call, policy_id, parse_policy_input(given))


async def apply_change(services: Services, call: Call, policy_id: str, change: PolicyChange) -> Updated:
    """Like :func:`update_policy`, with a change that is judged already."""
    await _check_complexity_aside(services, change)
    done = await write_as(services, call.caller, lambda tx: _update(tx, call, policy_id, change))
    services.wakeups.notify(*(Topic(Subject.DESIRED_STATE, host_id) for host_id in done.devboxes_by_host))
    return Updated(done.policy, await await_enforcement(services, done.policy.seq, done.devboxes_by_host))


def _update(tx: Connection, call: Call, policy_id: str, change: PolicyChange) -> _Committed:
    policy = _find_live(tx, call, policy_id)
    if claim(tx, call.request, policy_id, call.now_ms) is None:
        if change.name is not None and change.name != policy.name:
            _check_name(tx, call, change.name)
        policy = _advance(tx, call, policy, change)
    boxes = Counter(count_live_by_host(tx, policy_id))
    boxes.update(count_running_by_host(tx, policy_id))
    return _Committed(policy, boxes)


def _advance(tx: Connection, call: Call, policy: PolicyRow, change: PolicyChange) -> PolicyRow:
    """Store the next revision; ``policy`` itself when the change changes nothing, which then leaves no trace."""
    merge = merge_change(decode_policy(policy.document), change)
    description = policy.description if change.description is None else change.description
    is_same = not merge.new_rules and encode_policy(finish_merge(merge, grant_first=0)) == policy.document
    if is_same and description == policy.description:
        return policy
    numbers = take_numbers(tx, grants=len(merge.new_rules))
    document = finish_merge(merge, grant_first=numbers.grant_first)
    document = msgspec.structs.replace(document, revision=policy.revision + 1)
    changed = replace(
        policy,
        name=document.name,
        revision=document.revision,
        seq=numbers.seq,
        description=description,
        document=encode_policy(document),
        enforcement=document.enforcement,
        # The clock may step back between two updates; a policy's own time does not.
        update_time_ms=max(call.now_ms, policy.update_time_ms),
    )
    advance_policy(tx, changed, key_id=call.key_id)
    return changed


async def delete_policy(services: Services, call: Call, policy_id: str) -> PolicyRow:
    """Delete a policy; what it was last. Raises NotFoundError, and InvalidValueError while it is in use:
    by devboxes that have not ended, by running builds, or by blueprints that hand it on.
    """
    return await write_as(services, call.caller, lambda tx: _delete(tx, call, policy_id))


def _delete(tx: Connection, call: Call, policy_id: str) -> PolicyRow:
    if not is_id(IdPrefix.POLICY, policy_id):
        raise policy_not_found(policy_id)
    if claim(tx, call.request, policy_id, call.now_ms) is not None:
        deleted = find_policy(tx, call.account_id, policy_id)
        if deleted is not None:
            return deleted
    policy = _find_live(tx, call, policy_id)
    dependents = (
        Dependents(list_live_users(tx, policy_id), "devbox", "devboxes", "shut them down"),
        Dependents(list_policy_users(tx, policy_id), "blueprint", "blueprints", "delete them"),
    )
    refuse_while_used(f"Policy {policy_id}", dependents, code="policy_in_use")
    mark_policy_deleted(tx, policy_id, now_ms=call.now_ms, seq=take_numbers(tx).seq)
    return policy


def policy_not_found(policy_id: str) -> NotFoundError:
    """The refusal for ids that name no policy of the caller's."""
    shown = policy_id if is_id(IdPrefix.POLICY, policy_id) else repr(policy_id[:80])
    return NotFoundError(f"NetworkPolicy {shown} not found.", code="network_policy_not_found")


def _find_live(tx: Connection, call: Call, policy_id: str) -> PolicyRow:
    # Texts that are no ids do not reach the database: PostgreSQL refuses some of them with an error.
    policy = find_policy_locked(tx, call.account_id, policy_id) if is_id(IdPrefix.POLICY, policy_id) else None
    if policy is None or policy.delete_time_ms is not None:
        raise policy_not_found(policy_id)
    return policy


def _check_limit(tx: Connection, call: Call, policies_max: int) -> None:
    if count_policies(tx, call.account_id) >= policies_max:
        message = f"The account already has {policies_max} network policies, the most it may have; delete one first."
        raise InvalidValueError(message, code="policy_limit")


def _check_name(tx: Connection, call: Call, name: str) -> None:
    taken_by = find_policy_id_by_name(tx, call.account_id, name)
    if taken_by is not None:
        message = f"A network policy named {name!r} already exists: {taken_by}. Update it, or choose another name."
        raise ConflictError(message, code="name_taken")


async def _check_complexity_aside(services: Services, change: PolicyChange) -> None:
    cidrs = change.allowed_cidrs
    if not cidrs:
        return
    if len(cidrs) <= QUICK_RULES_MAX:
        check_complexity(cidrs, services.settings.context)
    else:
        await asyncio.to_thread(check_complexity, cidrs, services.settings.context)
