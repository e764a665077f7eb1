"""Disk snapshots: what each is called, and how far its host came with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from outgate.store.snapshot_tables import snapshot_metadata, snapshots
from outgate.store.tables import devboxes


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """One snapshot. ``metadata`` is JSON.

    ``begun`` is true once its host said that it began, ``released`` once nothing is left of it there.
    """

    id: str
    account_id: str
    host_id: str
    source_devbox_id: str
    source_blueprint_id: str | None
    policy_id: str | None
    name: str | None
    commit_message: str | None
    metadata: str
    status: str
    error_message: str | None
    size_bytes: int | None
    create_time_ms: int
    begun: bool
    released: bool


@dataclass(frozen=True, slots=True)
class SnapshotFilter:
    """What a list shows: None does not filter. ``metadata``: for each key, the values of which it must have one.

    ``before`` is the id after which (newest first) to go on.
    """

    devbox_id: str | None = None
    source_blueprint_id: str | None = None
    metadata: Mapping[str, frozenset[str]] = field(default_factory=dict)
    before: str | None = None


_FIELDS: Final = tuple(SnapshotRow.__dataclass_fields__)
_ROW: Final = select(*(snapshots.c[name] for name in _FIELDS))
_BY_ID: Final = _ROW.where(snapshots.c.id == bindparam("id"), snapshots.c.account_id == bindparam("account_id"))
_BY_ID_LOCKED: Final = _BY_ID.with_for_update()
_IN_PROGRESS: Final = _ROW.where(snapshots.c.status == "in_progress").order_by(snapshots.c.id)
_OF_DEVBOX_IN_PROGRESS: Final = (
    select(snapshots.c.id)
    .where(snapshots.c.source_devbox_id == bindparam("devbox_id"), snapshots.c.status == "in_progress")
    .limit(1)
)
_OF_BLUEPRINT: Final = (
    select(snapshots.c.id)
    .where(snapshots.c.source_blueprint_id == bindparam("blueprint_id"), snapshots.c.status != "deleted")
    .order_by(snapshots.c.id)
)
_COUNT: Final = (
    select(func.count())
    .select_from(snapshots)
    .where(snapshots.c.account_id == bindparam("account_id"), snapshots.c.status != "deleted")
)
# Until its disk is made, a devbox needs the image that it starts from.
_AWAITED: Final = (
    select(devboxes.c.id)
    .where(
        devboxes.c.snapshot_id == snapshots.c.id,
        devboxes.c.end_time_ms.is_(None),
        devboxes.c.status.in_(("queued", "provisioning", "initializing")),
    )
    .exists()
)
_UNRELEASED: Final = _ROW.where(
    snapshots.c.status.in_(("error", "deleted")), snapshots.c.released.is_(False), ~_AWAITED
).order_by(snapshots.c.id)
_SAVE: Final = (
    update(snapshots)
    .where(snapshots.c.id == bindparam("snapshot_id"))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS if name != "id"})
)


def insert_snapshot(connection: Connection, row: SnapshotRow) -> None:
    """Store a new snapshot."""
    connection.execute(insert(snapshots), {name: getattr(row, name) for name in _FIELDS})
    _insert_metadata(connection, row)


def save_snapshot(connection: Connection, row: SnapshotRow) -> None:
    """Store a changed snapshot."""
    values: dict[str, Any] = {f"new_{name}": getattr(row, name) for name in _FIELDS if name != "id"}
    connection.execute(_SAVE, values | {"snapshot_id": row.id})
    connection.execute(delete(snapshot_metadata).where(snapshot_metadata.c.snapshot_id == row.id))
    _insert_metadata(connection, row)


def _insert_metadata(connection: Connection, row: SnapshotRow) -> None:
    entries: dict[str, str] = json.loads(row.metadata)
    if entries:
        values = [{"snapshot_id": row.id, "key": key, "value": value} for key, value in entries.items()]
        connection.execute(insert(snapshot_metadata), values)


def find_snapshot(connection: Connection, account_id: str, snapshot_id: str) -> SnapshotRow | None:
    """The account's snapshot of that id, deleted ones too."""
    row = connection.execute(_BY_ID, {"account_id": account_id, "id": snapshot_id}).one_or_none()
    return None if row is None else _row(row)


def find_snapshot_locked(connection: Connection, account_id: str, snapshot_id: str) -> SnapshotRow | None:
    """Like :func:`find_snapshot`; nobody else changes the snapshot before the transaction ends."""
    row = connection.execute(_BY_ID_LOCKED, {"account_id": account_id, "id": snapshot_id}).one_or_none()
    return None if row is None else _row(row)


def list_snapshots(connection: Connection, account_id: str, wanted: SnapshotFilter, *, limit: int) -> list[SnapshotRow]:
    """At most ``limit`` snapshots that are not deleted, newest first."""
    query = _ROW.where(*_conditions(account_id, wanted)).order_by(snapshots.c.id.desc()).limit(limit)
    if wanted.before is not None:
        query = query.where(snapshots.c.id < wanted.before)
    return [_row(row) for row in connection.execute(query)]


def count_listed(connection: Connection, account_id: str, wanted: SnapshotFilter) -> int:
    """How many snapshots match, on all pages."""
    query = select(func.count()).select_from(snapshots).where(*_conditions(account_id, wanted))
    count: int = connection.execute(query).scalar_one()
    return count


def _conditions(account_id: str, wanted: SnapshotFilter) -> list[ColumnElement[bool]]:
    conditions = [snapshots.c.account_id == account_id, snapshots.c.status != "deleted"]
    if wanted.devbox_id is not None:
        conditions.append(snapshots.c.source_devbox_id == wanted.devbox_id)
    if wanted.source_blueprint_id is not None:
        conditions.append(snapshots.c.source_blueprint_id == wanted.source_blueprint_id)
    for key, values in wanted.metadata.items():
        having = select(snapshot_metadata.c.snapshot_id).where(
            snapshot_metadata.c.snapshot_id == snapshots.c.id,
            snapshot_metadata.c.key == key,
            snapshot_metadata.c.value.in_(sorted(values)),
        )
        conditions.append(having.exists())
    return conditions


def list_snapshots_of_blueprint(connection: Connection, blueprint_id: str) -> list[str]:
    """The snapshots, not deleted, of devboxes that were made from this blueprint, oldest first."""
    return [row[0] for row in connection.execute(_OF_BLUEPRINT, {"blueprint_id": blueprint_id})]


def count_kept(connection: Connection, account_id: str) -> int:
    """How many snapshots of the account are not deleted."""
    count: int = connection.execute(_COUNT, {"account_id": account_id}).scalar_one()
    return count


def is_in_progress(connection: Connection, devbox_id: str) -> bool:
    """Whether a snapshot of the devbox is being made."""
    return connection.execute(_OF_DEVBOX_IN_PROGRESS, {"devbox_id": devbox_id}).first() is not None


def list_in_progress(connection: Connection, *, limit: int) -> list[SnapshotRow]:
    """Snapshots that are being made, of all accounts, oldest first."""
    return [_row(row) for row in connection.execute(_IN_PROGRESS.limit(limit))]


def list_unreleased(connection: Connection, *, limit: int) -> list[SnapshotRow]:
    """Deleted and failed snapshots which their hosts may still keep, and which no devbox waits to start from."""
    return [_row(row) for row in connection.execute(_UNRELEASED.limit(limit))]


def _row(row: Any) -> SnapshotRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return SnapshotRow(*row)
