"""Gateway and MCP configurations, which differ in their kind and their documents alone."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, or_, select, update

from outgate.store.resource_tables import config_uses, configs
from outgate.store.tables import devboxes


@dataclass(frozen=True, slots=True)
class ConfigRow:
    """One configuration. ``document`` is the JSON of what its kind holds beside the name."""

    id: str
    account_id: str
    kind: str
    name: str
    document: str
    create_time_ms: int
    delete_time_ms: int | None


@dataclass(frozen=True, slots=True)
class ConfigFilter:
    """What a list shows: None does not filter. ``before`` is the id after which (newest first) to go on."""

    id: str | None = None
    name_part: str | None = None
    search: str | None = None
    before: str | None = None


_FIELDS: Final = tuple(ConfigRow.__dataclass_fields__)
_ROW: Final = select(*(configs.c[name] for name in _FIELDS))
_OWN: Final = _ROW.where(configs.c.account_id == bindparam("account_id"), configs.c.kind == bindparam("kind"))
_BY_ID: Final = _OWN.where(configs.c.id == bindparam("id"))
_BY_NAME: Final = _OWN.where(configs.c.name == bindparam("name"), configs.c.delete_time_ms.is_(None))
_COUNT: Final = (
    select(func.count())
    .select_from(configs)
    .where(configs.c.account_id == bindparam("account_id"), configs.c.delete_time_ms.is_(None))
)
_LIVE_USERS: Final = (
    select(config_uses.c.devbox_id)
    .join(devboxes, devboxes.c.id == config_uses.c.devbox_id)
    .where(config_uses.c.config_id == bindparam("config_id"), devboxes.c.end_time_ms.is_(None))
    .order_by(config_uses.c.devbox_id)
)
_SAVE: Final = (
    update(configs)
    .where(configs.c.id == bindparam("config_id"))
    .values(name=bindparam("new_name"), document=bindparam("new_document"), delete_time_ms=bindparam("new_delete"))
)


def insert_config(connection: Connection, row: ConfigRow) -> None:
    """Store a new configuration."""
    connection.execute(insert(configs), {name: getattr(row, name) for name in _FIELDS})


def save_config(connection: Connection, row: ConfigRow) -> None:
    """Store a changed configuration: its name, its document, whether it is deleted."""
    values = {"new_name": row.name, "new_document": row.document, "new_delete": row.delete_time_ms}
    connection.execute(_SAVE, values | {"config_id": row.id})


def find_config(connection: Connection, account_id: str, kind: str, config_id: str) -> ConfigRow | None:
    """The account's configuration of that id, deleted or not."""
    return _one(connection.execute(_BY_ID, {"account_id": account_id, "kind": kind, "id": config_id}).one_or_none())


def find_config_locked(connection: Connection, account_id: str, kind: str, config_id: str) -> ConfigRow | None:
    """Like :func:`find_config`; nobody else changes it before the transaction ends."""
    query = _BY_ID.with_for_update()
    return _one(connection.execute(query, {"account_id": account_id, "kind": kind, "id": config_id}).one_or_none())


def find_config_by_name(connection: Connection, account_id: str, kind: str, name: str) -> ConfigRow | None:
    """The account's live configuration of that name."""
    return _one(connection.execute(_BY_NAME, {"account_id": account_id, "kind": kind, "name": name}).one_or_none())


def count_configs(connection: Connection, account_id: str) -> int:
    """How many live configurations, of all kinds, the account has."""
    count: int = connection.execute(_COUNT, {"account_id": account_id}).scalar_one()
    return count


def list_configs(
    connection: Connection, account_id: str, kind: str, wanted: ConfigFilter, *, limit: int
) -> list[ConfigRow]:
    """At most ``limit`` live configurations, newest first."""
    query = _ROW.where(*_conditions(account_id, kind, wanted)).order_by(configs.c.id.desc()).limit(limit)
    if wanted.before is not None:
        query = query.where(configs.c.id < wanted.before)
    return [_row(row) for row in connection.execute(query)]


def count_listed(connection: Connection, account_id: str, kind: str, wanted: ConfigFilter) -> int:
    """How many configurations match, on all pages."""
    query = select(func.count()).select_from(configs).where(*_conditions(account_id, kind, wanted))
    count: int = connection.execute(query).scalar_one()
    return count


def _conditions(account_id: str, kind: str, wanted: ConfigFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        configs.c.account_id == account_id,
        configs.c.kind == kind,
        configs.c.delete_time_ms.is_(None),
    ]
    if wanted.id is not None:
        conditions.append(configs.c.id == wanted.id)
    if wanted.name_part is not None:
        conditions.append(configs.c.name.icontains(wanted.name_part, autoescape=True))
    if wanted.search is not None:
        named = configs.c.name.icontains(wanted.search, autoescape=True)
        conditions.append(or_(configs.c.id == wanted.search, named))
    return conditions


def insert_config_use(connection: Connection, config_id: str, devbox_id: str) -> None:
    """Store that the devbox was made with the configuration."""
    connection.execute(insert(config_uses), {"config_id": config_id, "devbox_id": devbox_id})


def list_live_config_users(connection: Connection, config_id: str) -> list[str]:
    """The ids of the live devboxes that were made with the configuration, oldest first."""
    return [row[0] for row in connection.execute(_LIVE_USERS, {"config_id": config_id})]


def forget_config_uses(connection: Connection, config_id: str) -> None:
    """Forget who was made with the configuration."""
    connection.execute(delete(config_uses).where(config_uses.c.config_id == config_id))


def forget_deleted_configs(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Forget at most ``limit`` configurations that were deleted before; how many they were."""
    oldest = select(configs.c.id).where(configs.c.delete_time_ms < before_ms).limit(limit)
    return connection.execute(delete(configs).where(configs.c.id.in_(oldest))).rowcount


def _one(row: Any) -> ConfigRow | None:
    return None if row is None else _row(row)


def _row(row: Any) -> ConfigRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return ConfigRow(*row)
