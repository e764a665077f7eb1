"""Blueprints: what was asked for, where each build is, and what it said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from outgate.store.blueprint_tables import blueprints, build_log_parts
from outgate.store.devboxes import HostDevbox
from outgate.store.tables import policies


@dataclass(frozen=True, slots=True)
class BlueprintRow:
    """One blueprint.

    ``document`` is the JSON of the DevboxDocument that its host builds by; ``parameters`` (the create body, echoed) and
    ``metadata`` are JSON too. ``policy_id`` is the build's, ``launch_policy_id`` what devboxes inherit, if anything.
    ``finish_time_ms`` is when the build ended, ``deadline_ms`` when a build whose host is silent counts as failed.
    ``released`` is true once its host has nothing to do for it any more, or may remove its image.
    """

    id: str
    account_id: str
    host_id: str
    policy_id: str
    launch_policy_id: str | None
    base_blueprint_id: str | None
    key_id: str
    name: str
    parameters: str
    metadata: str
    status: str
    document: str
    detail: str
    failure_reason: str | None
    create_time_ms: int
    finish_time_ms: int | None
    deadline_ms: int
    delete_time_ms: int | None
    released: bool
    seq: int


@dataclass(frozen=True, slots=True)
class BlueprintFilter:
    """What a list shows: None does not filter. ``before`` is the id after which (newest first) to go on."""

    name: str | None = None
    status: str | None = None
    before: str | None = None


_FIELDS: Final = tuple(BlueprintRow.__dataclass_fields__)
_ROW: Final = select(*(blueprints.c[name] for name in _FIELDS))
_BY_ID: Final = _ROW.where(blueprints.c.id == bindparam("id"), blueprints.c.account_id == bindparam("account_id"))
_BY_ID_LOCKED: Final = _BY_ID.with_for_update()
_NEWEST_BUILT: Final = (
    _ROW.where(
        blueprints.c.account_id == bindparam("account_id"),
        blueprints.c.name == bindparam("name"),
        blueprints.c.status == bindparam("status"),
        blueprints.c.delete_time_ms.is_(None),
    )
    .order_by(blueprints.c.id.desc())
    .limit(1)
)
_OF_HOST_LOCKED: Final = (
    _ROW.where(blueprints.c.host_id == bindparam("host_id"), blueprints.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(blueprints.c.id)
    .with_for_update()
)
_LIVE: Final = (blueprints.c.account_id == bindparam("account_id"), blueprints.c.delete_time_ms.is_(None))
_COUNT: Final = select(func.count()).select_from(blueprints).where(*_LIVE)
_COUNT_RUNNING: Final = _COUNT.where(blueprints.c.finish_time_ms.is_(None))
_OVERDUE: Final = (
    _ROW.where(blueprints.c.finish_time_ms.is_(None), blueprints.c.deadline_ms <= bindparam("now_ms"))
    .order_by(blueprints.c.deadline_ms)
    .limit(bindparam("most"))
)
_RUNNING_BY_HOST: Final = (
    select(blueprints.c.host_id, func.count())
    .where(blueprints.c.policy_id == bindparam("policy_id"), blueprints.c.finish_time_ms.is_(None))
    .group_by(blueprints.c.host_id)
)
_BUILDING_UNDER: Final = (
    select(blueprints.c.id)
    .where(blueprints.c.policy_id == bindparam("policy_id"), blueprints.c.finish_time_ms.is_(None))
    .order_by(blueprints.c.id)
)
_HANDING_ON: Final = (
    select(blueprints.c.id)
    .where(blueprints.c.launch_policy_id == bindparam("policy_id"), blueprints.c.delete_time_ms.is_(None))
    .order_by(blueprints.c.id)
)
_BUILDING_ON: Final = (
    select(blueprints.c.id)
    .where(blueprints.c.base_blueprint_id == bindparam("base_id"), blueprints.c.finish_time_ms.is_(None))
    .order_by(blueprints.c.id)
)
_OF_HOST: Final = select(
    blueprints.c.id, blueprints.c.policy_id, blueprints.c.document, blueprints.c.released
).order_by(blueprints.c.id)
_CHANGED: Final = _OF_HOST.where(blueprints.c.host_id == bindparam("host_id"), blueprints.c.seq > bindparam("after"))
_WANTED: Final = _OF_HOST.where(blueprints.c.host_id == bindparam("host_id"), blueprints.c.released.is_(False))
_CHANGED_POLICIES: Final = (
    select(policies.c.id)
    .where(policies.c.seq > bindparam("after"), policies.c.delete_time_ms.is_(None))
    .where(
        policies.c.id.in_(
            select(blueprints.c.policy_id).where(
                blueprints.c.host_id == bindparam("host_id"),
                blueprints.c.released.is_(False),
                # Nothing of a finished one runs; its host only keeps its image.
                blueprints.c.status != "build_complete",
            )
        )
    )
)
_SAVE: Final = (
    update(blueprints)
    .where(blueprints.c.id == bindparam("blueprint_id"))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS if name != "id"})
)
_PART: Final = select(build_log_parts.c.number).where(
    build_log_parts.c.blueprint_id == bindparam("blueprint_id"),
    build_log_parts.c.attempt == bindparam("attempt"),
    build_log_parts.c.number == bindparam("number"),
)
_PARTS: Final = (
    select(build_log_parts.c.lines)
    .where(build_log_parts.c.blueprint_id == bindparam("blueprint_id"))
    .order_by(build_log_parts.c.attempt, build_log_parts.c.number)
)
_FORGET_PARTS: Final = delete(build_log_parts).where(build_log_parts.c.blueprint_id == bindparam("blueprint_id"))


def insert_blueprint(connection: Connection, row: BlueprintRow) -> None:
    """Store a new blueprint."""
    connection.execute(insert(blueprints), {name: getattr(row, name) for name in _FIELDS})


def save_blueprint(connection: Connection, row: BlueprintRow) -> None:
    """Store a changed blueprint. Its host hears of it when ``row.seq`` is a new place in the sequence."""
    values: dict[str, Any] = {f"new_{name}": getattr(row, name) for name in _FIELDS if name != "id"}
    connection.execute(_SAVE, values | {"blueprint_id": row.id})


def find_blueprint(connection: Connection, account_id: str, blueprint_id: str) -> BlueprintRow | None:
    """The account's blueprint of that id, a deleted one too."""
    row = connection.execute(_BY_ID, {"account_id": account_id, "id": blueprint_id}).one_or_none()
    return None if row is None else _row(row)


def find_blueprint_locked(connection: Connection, account_id: str, blueprint_id: str) -> BlueprintRow | None:
    """Like :func:`find_blueprint`; nobody else changes the blueprint before the transaction ends."""
    row = connection.execute(_BY_ID_LOCKED, {"account_id": account_id, "id": blueprint_id}).one_or_none()
    return None if row is None else _row(row)


def find_newest_blueprint(connection: Connection, account_id: str, name: str, *, status: str) -> BlueprintRow | None:
    """The account's newest live blueprint of that name and status."""
    row = connection.execute(_NEWEST_BUILT, {"account_id": account_id, "name": name, "status": status}).one_or_none()
    return None if row is None else _row(row)


def find_host_blueprints_locked(connection: Connection, host_id: str, ids: Sequence[str]) -> list[BlueprintRow]:
    """Those of ``ids`` that are the host's, locked in the order of their ids."""
    return [_row(row) for row in connection.execute(_OF_HOST_LOCKED, {"host_id": host_id, "ids": list(ids)})]


def list_blueprints(
    connection: Connection, account_id: str, wanted: BlueprintFilter, *, limit: int
) -> list[BlueprintRow]:
    """At most ``limit`` live blueprints, newest first."""
    query = _ROW.where(*_conditions(account_id, wanted)).order_by(blueprints.c.id.desc()).limit(limit)
    if wanted.before is not None:
        query = query.where(blueprints.c.id < wanted.before)
    return [_row(row) for row in connection.execute(query)]


def count_listed_blueprints(connection: Connection, account_id: str, wanted: BlueprintFilter) -> int:
    """How many blueprints match, on all pages."""
    query = select(func.count()).select_from(blueprints).where(*_conditions(account_id, wanted))
    count: int = connection.execute(query).scalar_one()
    return count


def _conditions(account_id: str, wanted: BlueprintFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        blueprints.c.account_id == account_id,
        blueprints.c.delete_time_ms.is_(None),
    ]
    if wanted.name is not None:
        conditions.append(blueprints.c.name == wanted.name)
    if wanted.status is not None:
        conditions.append(blueprints.c.status == wanted.status)
    return conditions


def count_blueprints(connection: Connection, account_id: str) -> int:
    """How many blueprints of the account are not deleted."""
    count: int = connection.execute(_COUNT, {"account_id": account_id}).scalar_one()
    return count


def count_running_builds(connection: Connection, account_id: str) -> int:
    """How many builds of the account have not ended."""
    count: int = connection.execute(_COUNT_RUNNING, {"account_id": account_id}).scalar_one()
    return count


def list_overdue_builds(connection: Connection, *, now_ms: int, limit: int) -> list[BlueprintRow]:
    """Builds that have not ended and should have, longest overdue first."""
    return [_row(row) for row in connection.execute(_OVERDUE, {"now_ms": now_ms, "most": limit})]


def count_running_by_host(connection: Connection, policy_id: str) -> dict[str, int]:
    """How many builds under this policy run on each host; hosts without any are left out."""
    return {row[0]: row[1] for row in connection.execute(_RUNNING_BY_HOST, {"policy_id": policy_id})}


def list_policy_users(connection: Connection, policy_id: str) -> list[str]:
    """The blueprints that use this policy, oldest first: those that build under it and those that hand it on."""
    found = {
        row[0]
        for statement in (_BUILDING_UNDER, _HANDING_ON)
        for row in connection.execute(statement, {"policy_id": policy_id})
    }
    return sorted(found)


def list_builds_on(connection: Connection, blueprint_id: str) -> list[str]:
    """The running builds that build upon this blueprint, oldest first."""
    return [row[0] for row in connection.execute(_BUILDING_ON, {"base_id": blueprint_id})]


def list_builds_for_host(connection: Connection, host_id: str, *, after: int | None) -> list[HostDevbox]:
    """The host's builds that changed after ``after``, or all it still has to care for when None."""
    if after is None:
        rows = connection.execute(_WANTED, {"host_id": host_id})
    else:
        rows = connection.execute(_CHANGED, {"host_id": host_id, "after": after})
    return [HostDevbox(*row) for row in rows]


def list_changed_build_policies(connection: Connection, host_id: str, *, after: int) -> list[str]:
    """The policies of the host's builds that changed after ``after``."""
    return [row[0] for row in connection.execute(_CHANGED_POLICIES, {"host_id": host_id, "after": after})]


def add_log_part(connection: Connection, blueprint_id: str, attempt: int, number: int, lines: str) -> None:
    """Keep a part of a build's log, once."""
    key = {"blueprint_id": blueprint_id, "attempt": attempt, "number": number}
    if connection.execute(_PART, key).one_or_none() is None:
        connection.execute(insert(build_log_parts), {**key, "lines": lines})


def read_log_parts(connection: Connection, blueprint_id: str) -> list[str]:
    """The parts of a build's log in order, each the JSON of a list of lines."""
    return [row[0] for row in connection.execute(_PARTS, {"blueprint_id": blueprint_id})]


def forget_log(connection: Connection, blueprint_id: str) -> None:
    """Remove a build's log."""
    connection.execute(_FORGET_PARTS, {"blueprint_id": blueprint_id})


def _row(row: Any) -> BlueprintRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return BlueprintRow(*row)
