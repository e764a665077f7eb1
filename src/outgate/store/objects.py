"""Storage objects: what is known of each, and which file holds its bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, or_, select, update

from outgate.store.resource_tables import objects


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object. ``metadata`` is JSON; ``file`` is None until bytes arrived and once they are gone."""

    id: str
    account_id: str
    name: str
    content_type: str
    state: str
    metadata: str
    size_bytes: int | None
    file: str | None
    create_time_ms: int
    delete_after_time_ms: int | None
    end_time_ms: int | None


@dataclass(frozen=True, slots=True)
class ObjectFilter:
    """What a list shows: None does not filter, but that ended objects show only when their state is asked for.

    ``before`` is the id after which (newest first) to go on.
    """

    name_part: str | None = None
    search: str | None = None
    content_type: str | None = None
    state: str | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What an account's objects take: those that have not ended."""

    count: int
    size_bytes: int


_FIELDS: Final = tuple(ObjectRow.__dataclass_fields__)
_ROW: Final = select(*(objects.c[name] for name in _FIELDS))
_BY_ID: Final = _ROW.where(objects.c.id == bindparam("id"))
_BY_ID_LOCKED: Final = _BY_ID.with_for_update()
_USAGE: Final = select(func.count(), func.coalesce(func.sum(objects.c.size_bytes), 0)).where(
    objects.c.account_id == bindparam("account_id"), objects.c.end_time_ms.is_(None)
)
_DUE: Final = (
    _ROW.where(
        objects.c.end_time_ms.is_(None),
        or_(
            objects.c.delete_after_time_ms <= bindparam("now_ms"),
            (objects.c.state == "UPLOADING") & (objects.c.create_time_ms <= bindparam("abandoned_ms")),
        ),
    )
    .order_by(objects.c.id)
    .limit(bindparam("most"))
)
_DUE_LOCKED: Final = _DUE.with_for_update()
_NAMED_FILES: Final = select(objects.c.file).where(objects.c.file.in_(bindparam("files", expanding=True)))
_SAVE: Final = (
    update(objects)
    .where(objects.c.id == bindparam("object_id"))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS if name != "id"})
)


def insert_object(connection: Connection, row: ObjectRow) -> None:
    """Store a new object."""
    connection.execute(insert(objects), {name: getattr(row, name) for name in _FIELDS})


def save_object(connection: Connection, row: ObjectRow) -> None:
    """Store a changed object."""
    values: dict[str, Any] = {f"new_{name}": getattr(row, name) for name in _FIELDS if name != "id"}
    connection.execute(_SAVE, values | {"object_id": row.id})


def find_object(connection: Connection, object_id: str) -> ObjectRow | None:
    """The object of that id, whoever's it is."""
    row = connection.execute(_BY_ID, {"id": object_id}).one_or_none()
    return None if row is None else _row(row)


def find_object_locked(connection: Connection, object_id: str) -> ObjectRow | None:
    """Like :func:`find_object`; nobody else changes the object before the transaction ends."""
    row = connection.execute(_BY_ID_LOCKED, {"id": object_id}).one_or_none()
    return None if row is None else _row(row)


def list_objects(connection: Connection, account_id: str, wanted: ObjectFilter, *, limit: int) -> list[ObjectRow]:
    """At most ``limit`` objects, newest first."""
    query = _ROW.where(*_conditions(account_id, wanted)).order_by(objects.c.id.desc()).limit(limit)
    if wanted.before is not None:
        query = query.where(objects.c.id < wanted.before)
    return [_row(row) for row in connection.execute(query)]


def count_listed(connection: Connection, account_id: str, wanted: ObjectFilter) -> int:
    """How many objects match, on all pages."""
    query = select(func.count()).select_from(objects).where(*_conditions(account_id, wanted))
    count: int = connection.execute(query).scalar_one()
    return count


def _conditions(account_id: str, wanted: ObjectFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [objects.c.account_id == account_id]
    if wanted.state is None:
        conditions.append(objects.c.end_time_ms.is_(None))
    else:
        conditions.append(objects.c.state == wanted.state)
    if wanted.content_type is not None:
        conditions.append(objects.c.content_type == wanted.content_type)
    if wanted.name_part is not None:
        conditions.append(objects.c.name.icontains(wanted.name_part, autoescape=True))
    if wanted.search is not None:
        conditions.append(or_(objects.c.id == wanted.search, objects.c.name.icontains(wanted.search, autoescape=True)))
    return conditions


def read_usage(connection: Connection, account_id: str) -> Usage:
    """What the account's objects take now."""
    row = connection.execute(_USAGE, {"account_id": account_id}).one()
    return Usage(int(row[0]), int(row[1]))


def has_due(connection: Connection, *, now_ms: int, abandoned_ms: int) -> bool:
    """Whether there is an object that :func:`list_due_locked` would list."""
    due = {"now_ms": now_ms, "abandoned_ms": abandoned_ms, "most": 1}
    return connection.execute(_DUE, due).first() is not None


def list_due_locked(connection: Connection, *, now_ms: int, abandoned_ms: int, limit: int) -> list[ObjectRow]:
    """Objects whose time is up, and those that were begun before ``abandoned_ms`` and never completed."""
    due = {"now_ms": now_ms, "abandoned_ms": abandoned_ms, "most": limit}
    return [_row(row) for row in connection.execute(_DUE_LOCKED, due)]


def find_named_files(connection: Connection, files: Sequence[str]) -> set[str]:
    """Those of ``files`` that an object names."""
    return {row[0] for row in connection.execute(_NAMED_FILES, {"files": list(files)})}


def forget_ended_objects(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Forget at most ``limit`` objects that ended before; how many they were."""
    oldest = select(objects.c.id).where(objects.c.end_time_ms < before_ms).order_by(objects.c.end_time_ms).limit(limit)
    return connection.execute(delete(objects).where(objects.c.id.in_(oldest))).rowcount


def _row(row: Any) -> ObjectRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return ObjectRow(*row)
