"""Devboxes with their policies, and whether these are in force on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from outgate.control.builtin_policies import BUILTIN_POLICIES
from outgate.control.callers import Caller
from outgate.control.devbox_reading import get_devbox
from outgate.control.devbox_states import DevboxStatus
from outgate.control.health import Health, observe_health
from outgate.control.policy_documents import decode_policy
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.model.desired import PolicyDocument
from outgate.store.devboxes import DevboxFilter, DevboxRow, list_devboxes
from outgate.store.hosts import HostRow, list_hosts
from outgate.store.policies import PolicyRow, find_policy


class InForce(StrEnum):
    """How far a devbox's policy is in force on it."""

    YES = "yes"
    WAITING = "waiting"
    """Its host has not confirmed the newest revision yet."""
    UNKNOWN = "unknown"
    """Its host is not heard of. What was in force last stays so."""
    NOT_RUNNING = "not_running"
    """There is nothing to enforce."""


@dataclass(frozen=True, slots=True)
class DevboxOverview:
    """A devbox; ``policy`` is None when it was deleted with the last devbox that used it."""

    devbox: DevboxRow
    policy: PolicyDocument | None
    host_name: str
    in_force: InForce
    problem: str | None
    """What is wrong with its host, as a sentence's end."""


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """One page of devboxes, newest first."""

    devboxes: tuple[DevboxOverview, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class _Around:
    """What was read with devboxes: their policies, but for built-in ones, and all hosts, by id."""

    policies: Mapping[str, PolicyRow]
    hosts: Mapping[str, HostRow]


async def page_overview(
    services: Services, caller: Caller, wanted: DevboxFilter, *, limit: int, now_ms: int
) -> OverviewPage:
    """At most ``limit`` of the caller's devboxes."""

    def read(tx: Connection) -> tuple[list[DevboxRow], _Around]:
        rows = list_devboxes(tx, caller.account_id, wanted, limit=limit + 1)
        return rows, _read_around(tx, caller, rows[:limit])

    rows, around = await read_as(services, caller, read)
    health = await observe_health(services, now_ms)
    return OverviewPage(tuple(_look_at(row, around, health) for row in rows[:limit]), len(rows) > limit)


async def get_overview(services: Services, caller: Caller, devbox_id: str, *, now_ms: int) -> DevboxOverview:
    """The caller's devbox. Raises NotFoundError."""
    row = await get_devbox(services, caller, devbox_id)
    around = await read_as(services, caller, lambda tx: _read_around(tx, caller, [row]))
    return _look_at(row, around, await observe_health(services, now_ms))


def _read_around(tx: Connection, caller: Caller, rows: Sequence[DevboxRow]) -> _Around:
    found = [find_policy(tx, caller.account_id, id_) for id_ in sorted({row.policy_id for row in rows})]
    policies = {policy.id: policy for policy in found if policy is not None}
    return _Around(policies, {host.id: host for host in list_hosts(tx)})


def _look_at(row: DevboxRow, around: _Around, health: Health) -> DevboxOverview:
    policy, host = around.policies.get(row.policy_id), around.hosts[row.host_id]
    document = BUILTIN_POLICIES.get(row.policy_id) if policy is None else decode_policy(policy.document)
    known = next((one for one in health.hosts if one.name == host.name), None)
    problem = health.problem if known is None else known.problem
    if row.status != DevboxStatus.RUNNING:
        in_force = InForce.NOT_RUNNING
    elif known is None or problem is not None:
        in_force = InForce.UNKNOWN
    else:
        wanted = max(row.seq, 0 if policy is None else policy.seq)
        in_force = InForce.YES if known.enforced >= wanted else InForce.WAITING
    return DevboxOverview(row, document, host.name, in_force, problem)
