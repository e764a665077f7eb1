"""Devboxes: what was asked for, and where each one is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, or_, select, update

from outgate.store.tables import devboxes, policies
from outgate.store.tunnel_tables import tunnels


@dataclass(frozen=True, slots=True)
class DevboxRow:
    """One devbox.

    ``document`` is the JSON of the DevboxDocument its host is told; ``metadata``, ``launch_parameters`` and
    ``transitions`` are JSON too. ``released`` is true once the host said that nothing of it is left.
    ``expire_time_ms`` is when it is due to end: for want of a keep-alive, or of activity when ``idle_s`` is set
    (``on_idle`` says what then happens). ``run_ms`` counts its time as running up to ``run_since_ms``, when it
    began to run last; None while it does not.
    """

    id: str
    account_id: str
    host_id: str
    policy_id: str
    key_id: str
    name: str | None
    metadata: str
    launch_parameters: str
    status: str
    transitions: str
    document: str
    detail: str
    failure_reason: str | None
    shutdown_reason: str | None
    create_time_ms: int
    end_time_ms: int | None
    keep_alive_s: int
    expire_time_ms: int
    released: bool
    seq: int
    blueprint_id: str | None = None
    snapshot_id: str | None = None
    idle_s: int | None = None
    on_idle: str | None = None
    run_ms: int = 0
    run_since_ms: int | None = None
    tunnel: str | None = None
    """The JSON of its TunnelDocument: read along, changed in :mod:`outgate.store.tunnels`."""


_FIELDS: Final = tuple(name for name in DevboxRow.__dataclass_fields__ if name != "tunnel")
# A subquery and not a join: PostgreSQL does not lock rows on the nullable side of a join.
_TUNNEL: Final = (
    select(tunnels.c.document)
    .where(tunnels.c.devbox_id == devboxes.c.id, tunnels.c.remove_time_ms.is_(None))
    .scalar_subquery()
)
_ROW: Final = select(*(devboxes.c[name] for name in _FIELDS), _TUNNEL)
_BY_ID: Final = _ROW.where(devboxes.c.id == bindparam("id"), devboxes.c.account_id == bindparam("account_id"))
_BY_ID_LOCKED: Final = _BY_ID.with_for_update()
_OF_HOST_LOCKED: Final = _ROW.where(
    devboxes.c.host_id == bindparam("host_id"), devboxes.c.id.in_(bindparam("ids", expanding=True))
).with_for_update()
_COUNT_LIVE: Final = (
    select(func.count())
    .select_from(devboxes)
    .where(devboxes.c.account_id == bindparam("account_id"), devboxes.c.end_time_ms.is_(None))
)
_RESTING: Final = ("suspending", "suspended")
"""Statuses in which no time runs out: a suspended devbox waits to be resumed or shut down."""
_DUE: Final = (
    select(devboxes.c.account_id, devboxes.c.id, devboxes.c.host_id, devboxes.c.idle_s, devboxes.c.expire_time_ms)
    .where(devboxes.c.end_time_ms.is_(None), devboxes.c.expire_time_ms <= bindparam("until_ms"))
    .where(devboxes.c.status.not_in(_RESTING))
    .order_by(devboxes.c.expire_time_ms)
    .limit(bindparam("most"))
)
_DUE_OF_ALL: Final = _DUE.where(
    or_(devboxes.c.idle_s.is_(None), devboxes.c.expire_time_ms <= bindparam("idle_until_ms"))
)
_DUE_OF_ACCOUNT: Final = _DUE.where(devboxes.c.account_id == bindparam("account_id"))
_NOTE_ACTIVITY: Final = (
    update(devboxes)
    .where(devboxes.c.id == bindparam("devbox_id"), devboxes.c.end_time_ms.is_(None), devboxes.c.idle_s.is_not(None))
    .where(devboxes.c.expire_time_ms < bindparam("time_ms") + devboxes.c.idle_s * 1000)
    .values(expire_time_ms=bindparam("time_ms") + devboxes.c.idle_s * 1000)
)
_POSTPONE: Final = (
    update(devboxes)
    .where(devboxes.c.id == bindparam("devbox_id"), devboxes.c.expire_time_ms < bindparam("until_ms"))
    .values(expire_time_ms=bindparam("until_ms"))
)
_LIVE_BY_HOST: Final = (
    select(devboxes.c.host_id, func.count())
    .where(devboxes.c.policy_id == bindparam("policy_id"), devboxes.c.end_time_ms.is_(None))
    .group_by(devboxes.c.host_id)
)
_USERS: Final = (
    select(devboxes.c.id)
    .where(devboxes.c.policy_id == bindparam("policy_id"), devboxes.c.end_time_ms.is_(None))
    .order_by(devboxes.c.id)
)
_OF_BLUEPRINT: Final = (
    select(devboxes.c.id)
    .where(devboxes.c.blueprint_id == bindparam("blueprint_id"), devboxes.c.end_time_ms.is_(None))
    .order_by(devboxes.c.id)
)
# The host hears of a devbox until it has said that nothing is left of it, and once more then.
_CHANGED: Final = (
    select(devboxes.c.id, devboxes.c.policy_id, devboxes.c.document, devboxes.c.released)
    .where(devboxes.c.host_id == bindparam("host_id"), devboxes.c.seq > bindparam("after"))
    .order_by(devboxes.c.id)
)
_WANTED: Final = (
    select(devboxes.c.id, devboxes.c.policy_id, devboxes.c.document, devboxes.c.released)
    .where(devboxes.c.host_id == bindparam("host_id"), devboxes.c.released.is_(False))
    .order_by(devboxes.c.id)
)
_CHANGED_POLICIES: Final = (
    select(policies.c.id)
    .where(policies.c.seq > bindparam("after"), policies.c.delete_time_ms.is_(None))
    .where(
        policies.c.id.in_(
            select(devboxes.c.policy_id).where(
                devboxes.c.host_id == bindparam("host_id"), devboxes.c.released.is_(False)
            )
        )
    )
)
_SAVE: Final = (
    update(devboxes)
    .where(devboxes.c.id == bindparam("devbox_id"))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS if name != "id"})
)


@dataclass(frozen=True, slots=True)
class HostDevbox:
    """A devbox as its host must hear of it."""

    id: str
    policy_id: str
    document: str
    released: bool


@dataclass(frozen=True, slots=True)
class DueDevbox:
    """A devbox that is due to end, or will be. ``idle_s`` is None where the keep-alive time decides."""

    account_id: str
    id: str
    host_id: str
    idle_s: int | None
    expire_time_ms: int


@dataclass(frozen=True, slots=True)
class DevboxFilter:
    """What a list shows: None does not filter. ``before`` is the id after which (newest first) to go on."""

    status: str | None = None
    before: str | None = None


def insert_devbox(connection: Connection, row: DevboxRow) -> None:
    """Store a new devbox."""
    connection.execute(insert(devboxes), {name: getattr(row, name) for name in _FIELDS})


def save_devbox(connection: Connection, row: DevboxRow) -> None:
    """Store a changed devbox. Its host hears of it when ``row.seq`` is a new place in the sequence."""
    values: dict[str, Any] = {f"new_{name}": getattr(row, name) for name in _FIELDS if name != "id"}
    connection.execute(_SAVE, values | {"devbox_id": row.id})


def find_devbox(connection: Connection, account_id: str, devbox_id: str) -> DevboxRow | None:
    """The account's devbox of that id."""
    row = connection.execute(_BY_ID, {"account_id": account_id, "id": devbox_id}).one_or_none()
    return None if row is None else _row(row)


def find_devbox_locked(connection: Connection, account_id: str, devbox_id: str) -> DevboxRow | None:
    """Like :func:`find_devbox`; nobody else changes the devbox before the transaction ends."""
    row = connection.execute(_BY_ID_LOCKED, {"account_id": account_id, "id": devbox_id}).one_or_none()
    return None if row is None else _row(row)


def find_host_devboxes_locked(connection: Connection, host_id: str, ids: Sequence[str]) -> list[DevboxRow]:
    """Those of ``ids`` that live on the host, locked in the order of their ids."""
    rows = connection.execute(_OF_HOST_LOCKED.order_by(devboxes.c.id), {"host_id": host_id, "ids": list(ids)})
    return [_row(row) for row in rows]


def list_devboxes(connection: Connection, account_id: str, wanted: DevboxFilter, *, limit: int) -> list[DevboxRow]:
    """At most ``limit`` devboxes, newest first."""
    query = _ROW.where(*_conditions(account_id, wanted)).order_by(devboxes.c.id.desc()).limit(limit)
    if wanted.before is not None:
        query = query.where(devboxes.c.id < wanted.before)
    return [_row(row) for row in connection.execute(query)]


def count_listed(connection: Connection, account_id: str, wanted: DevboxFilter) -> int:
    """How many devboxes match, on all pages."""
    query = select(func.count()).select_from(devboxes).where(*_conditions(account_id, wanted))
    count: int = connection.execute(query).scalar_one()
    return count


def _conditions(account_id: str, wanted: DevboxFilter) -> list[ColumnElement[bool]]:
    conditions = [devboxes.c.account_id == account_id]
    if wanted.status is not None:
        conditions.append(devboxes.c.status == wanted.status)
    return conditions


def count_live(connection: Connection, account_id: str) -> int:
    """How many devboxes of the account have not ended."""
    count: int = connection.execute(_COUNT_LIVE, {"account_id": account_id}).scalar_one()
    return count


def list_due(connection: Connection, *, until_ms: int, idle_until_ms: int, limit: int) -> list[DueDevbox]:
    """At most ``limit`` live devboxes whose keep-alive or idle time is up by then, longest overdue first."""
    values = {"until_ms": until_ms, "idle_until_ms": idle_until_ms, "most": limit}
    return [DueDevbox(*row) for row in connection.execute(_DUE_OF_ALL, values)]


def list_due_of_account(connection: Connection, account_id: str, *, until_ms: int, limit: int) -> list[DueDevbox]:
    """At most ``limit`` live devboxes of the account whose time is up by ``until_ms``, the first first."""
    values = {"account_id": account_id, "until_ms": until_ms, "most": limit}
    return [DueDevbox(*row) for row in connection.execute(_DUE_OF_ACCOUNT, values)]


def note_activity_times(connection: Connection, times_ms: Mapping[str, int]) -> None:
    """These devboxes were active at these times: those that end when idle end that much later. Never earlier."""
    # By id, so that two processes which note the same devboxes do not wait for each other's locks crosswise.
    values = [{"devbox_id": devbox_id, "time_ms": time_ms} for devbox_id, time_ms in sorted(times_ms.items())]
    if values:
        connection.execute(_NOTE_ACTIVITY, values)


def postpone_end(connection: Connection, devbox_id: str, *, until_ms: int) -> None:
    """The devbox is not due before ``until_ms``."""
    connection.execute(_POSTPONE, {"devbox_id": devbox_id, "until_ms": until_ms})


def count_live_by_host(connection: Connection, policy_id: str) -> dict[str, int]:
    """How many live devboxes of this policy each host has; hosts without any are left out."""
    return {row[0]: row[1] for row in connection.execute(_LIVE_BY_HOST, {"policy_id": policy_id})}


def list_live_users(connection: Connection, policy_id: str) -> list[str]:
    """The ids of all live devboxes under this policy, oldest first."""
    return [row[0] for row in connection.execute(_USERS, {"policy_id": policy_id})]


def list_live_of_blueprint(connection: Connection, blueprint_id: str) -> list[str]:
    """The ids of all live devboxes that were made from this blueprint, oldest first."""
    return [row[0] for row in connection.execute(_OF_BLUEPRINT, {"blueprint_id": blueprint_id})]


def list_for_host(connection: Connection, host_id: str, *, after: int | None) -> list[HostDevbox]:
    """The host's devboxes that changed after ``after``, or all it still has to care for when None."""
    if after is None:
        rows = connection.execute(_WANTED, {"host_id": host_id})
    else:
        rows = connection.execute(_CHANGED, {"host_id": host_id, "after": after})
    return [HostDevbox(*row) for row in rows]


def list_changed_policies(connection: Connection, host_id: str, *, after: int) -> list[str]:
    """The policies of the host's devboxes that changed after ``after``."""
    return [row[0] for row in connection.execute(_CHANGED_POLICIES, {"host_id": host_id, "after": after})]


def _row(row: Any) -> DevboxRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return DevboxRow(*row)
