"""Secrets: names, and values that are readable under the installation's key only."""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from outgate.store.resource_tables import secrets


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One secret. ``sealed`` is its encrypted value, empty once it is deleted."""

    id: str
    account_id: str
    name: str
    sealed: bytes
    key_fingerprint: str
    create_time_ms: int
    update_time_ms: int
    delete_time_ms: int | None


_FIELDS: Final = tuple(SecretRow.__dataclass_fields__)
_ROW: Final = select(*(secrets.c[name] for name in _FIELDS))
_OWN: Final = _ROW.where(secrets.c.account_id == bindparam("account_id"))
_BY_ID: Final = _OWN.where(secrets.c.id == bindparam("id"))
_BY_NAME: Final = _OWN.where(secrets.c.name == bindparam("name"), secrets.c.delete_time_ms.is_(None))
_BY_NAMES: Final = _OWN.where(
    secrets.c.name.in_(bindparam("names", expanding=True)), secrets.c.delete_time_ms.is_(None)
)
_LIVE: Final = _OWN.where(secrets.c.delete_time_ms.is_(None)).order_by(secrets.c.id.desc()).limit(bindparam("most"))
_COUNT: Final = (
    select(func.count())
    .select_from(secrets)
    .where(secrets.c.account_id == bindparam("account_id"), secrets.c.delete_time_ms.is_(None))
)
_UNDER_OTHER_KEYS: Final = (
    select(secrets.c.id)
    .where(secrets.c.delete_time_ms.is_(None), secrets.c.key_fingerprint != bindparam("fingerprint"))
    .limit(1)
)
_SAVE: Final = (
    update(secrets)
    .where(secrets.c.id == bindparam("secret_id"))
    .values({name: bindparam(f"new_{name}") for name in _FIELDS if name != "id"})
)


def insert_secret(connection: Connection, row: SecretRow) -> None:
    """Store a new secret."""
    connection.execute(insert(secrets), {name: getattr(row, name) for name in _FIELDS})


def save_secret(connection: Connection, row: SecretRow) -> None:
    """Store a changed secret."""
    values: dict[str, Any] = {f"new_{name}": getattr(row, name) for name in _FIELDS if name != "id"}
    connection.execute(_SAVE, values | {"secret_id": row.id})


def find_secret(connection: Connection, account_id: str, secret_id: str) -> SecretRow | None:
    """The account's secret of that id, deleted or not."""
    return _one(connection.execute(_BY_ID, {"account_id": account_id, "id": secret_id}).one_or_none())


def find_secret_locked(connection: Connection, account_id: str, secret_id: str) -> SecretRow | None:
    """Like :func:`find_secret`; nobody else changes the secret before the transaction ends."""
    query = _BY_ID.with_for_update()
    return _one(connection.execute(query, {"account_id": account_id, "id": secret_id}).one_or_none())


def find_secret_by_name(connection: Connection, account_id: str, name: str) -> SecretRow | None:
    """The account's live secret of that name."""
    return _one(connection.execute(_BY_NAME, {"account_id": account_id, "name": name}).one_or_none())


def find_secret_by_name_locked(connection: Connection, account_id: str, name: str) -> SecretRow | None:
    """Like :func:`find_secret_by_name`; nobody else changes the secret before the transaction ends."""
    query = _BY_NAME.with_for_update()
    return _one(connection.execute(query, {"account_id": account_id, "name": name}).one_or_none())


def find_secrets_by_name(connection: Connection, account_id: str, names: list[str]) -> dict[str, SecretRow]:
    """The account's live secrets of these names; names without one are left out."""
    rows = connection.execute(_BY_NAMES, {"account_id": account_id, "names": names})
    return {row.name: row for row in map(_row, rows)}


def list_secrets(connection: Connection, account_id: str, *, limit: int) -> list[SecretRow]:
    """At most ``limit`` live secrets, newest first."""
    return [_row(row) for row in connection.execute(_LIVE, {"account_id": account_id, "most": limit})]


def count_secrets(connection: Connection, account_id: str) -> int:
    """How many live secrets the account has."""
    count: int = connection.execute(_COUNT, {"account_id": account_id}).scalar_one()
    return count


def has_secrets_under_other_keys(connection: Connection, fingerprint: str) -> bool:
    """Whether a live secret was sealed under a key other than that one."""
    return connection.execute(_UNDER_OTHER_KEYS, {"fingerprint": fingerprint}).one_or_none() is not None


def forget_deleted_secrets(connection: Connection, *, before_ms: int, limit: int) -> int:
    """Forget at most ``limit`` secrets that were deleted before; how many they were."""
    oldest = select(secrets.c.id).where(secrets.c.delete_time_ms < before_ms).limit(limit)
    return connection.execute(delete(secrets).where(secrets.c.id.in_(oldest))).rowcount


def _one(row: Any) -> SecretRow | None:
    return None if row is None else _row(row)


def _row(row: Any) -> SecretRow:
    # Any: the columns come from the class's own fields, which no type checker can follow.
    return SecretRow(*row)
