"""Who uses a policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outgate.control.callers import Caller
from outgate.control.policy_reading import read_live_policy
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.store.blueprints import list_policy_users
from outgate.store.devboxes import count_live_by_host, list_live_users
from outgate.store.policies import PolicyRow


@dataclass(frozen=True, slots=True)
class PolicyUsage:
    """A policy, and by id the live devboxes and the blueprints that use it, oldest first."""

    policy: PolicyRow
    devbox_ids: tuple[str, ...]
    blueprint_ids: tuple[str, ...]


async def find_usage(services: Services, caller: Caller, policy_id: str) -> PolicyUsage:
    """The caller's policy with those who use it. Raises NotFoundError."""
    return await read_as(
        services,
        caller,
        lambda tx: PolicyUsage(
            read_live_policy(tx, caller, policy_id),
            tuple(list_live_users(tx, policy_id)),
            tuple(list_policy_users(tx, policy_id)),
        ),
    )


async def count_users(services: Services, caller: Caller, policies: Sequence[PolicyRow]) -> Mapping[str, int]:
    """How many live devboxes each of the caller's ``policies`` has."""
    own = [policy.id for policy in policies if policy.account_id == caller.account_id]
    return await read_as(services, caller, lambda tx: {id_: sum(count_live_by_host(tx, id_).values()) for id_ in own})
