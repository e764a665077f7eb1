"""Accounts and their API keys."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, insert, or_, select, update

from outgate.store.tables import accounts, api_keys


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account."""

    id: str
    name: str
    create_time_ms: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One API key. ``digest`` is the SHA-256 of the key; the key itself is stored nowhere.

    ``scopes`` is the JSON of what a restricted key may do, None for one that may do everything.
    """

    id: str
    account_id: str
    name: str
    lookup: str
    digest: bytes
    create_time_ms: int
    revoke_time_ms: int | None
    scopes: str | None = None
    expire_time_ms: int | None = None


_KEY: Final = select(
    api_keys.c.id,
    api_keys.c.account_id,
    api_keys.c.name,
    api_keys.c.lookup,
    api_keys.c.digest,
    api_keys.c.create_time_ms,
    api_keys.c.revoke_time_ms,
    api_keys.c.scopes,
    api_keys.c.expire_time_ms,
)
_ACCOUNT: Final = select(accounts.c.id, accounts.c.name, accounts.c.create_time_ms)
_KEYS_BY_LOOKUP: Final = _KEY.where(api_keys.c.lookup == bindparam("lookup"))
_KEYS_OF_ACCOUNT: Final = _KEY.where(api_keys.c.account_id == bindparam("account_id")).order_by(api_keys.c.id)
_ACCOUNT_BY_ID: Final = _ACCOUNT.where(accounts.c.id == bindparam("id"))
_ACCOUNT_BY_NAME: Final = _ACCOUNT.where(accounts.c.name == bindparam("name"))
_ACCOUNTS: Final = _ACCOUNT.order_by(accounts.c.id)
_LIVE_KEY: Final = select(api_keys.c.id).where(
    api_keys.c.id == bindparam("key_id"),
    api_keys.c.revoke_time_ms.is_(None),
    or_(api_keys.c.expire_time_ms.is_(None), api_keys.c.expire_time_ms > bindparam("now_ms")),
)
_COUNT_LIVE_KEYS: Final = (
    select(func.count())
    .select_from(api_keys)
    .where(
        api_keys.c.account_id == bindparam("account_id"),
        api_keys.c.revoke_time_ms.is_(None),
        or_(api_keys.c.expire_time_ms.is_(None), api_keys.c.expire_time_ms > bindparam("now_ms")),
    )
)
_REVOKE: Final = (
    update(api_keys)
    .where(api_keys.c.id == bindparam("key_id"), api_keys.c.revoke_time_ms.is_(None))
    .values(revoke_time_ms=bindparam("now_ms"))
)


def insert_account(connection: Connection, row: AccountRow) -> None:
    """Store a new account."""
    connection.execute(insert(accounts), {"id": row.id, "name": row.name, "create_time_ms": row.create_time_ms})


def find_account(connection: Connection, account_id: str) -> AccountRow | None:
    """The account of that id."""
    row = connection.execute(_ACCOUNT_BY_ID, {"id": account_id}).one_or_none()
    return None if row is None else AccountRow(*row)


def find_account_by_name(connection: Connection, name: str) -> AccountRow | None:
    """The account of that name."""
    row = connection.execute(_ACCOUNT_BY_NAME, {"name": name}).one_or_none()
    return None if row is None else AccountRow(*row)


def list_accounts(connection: Connection) -> list[AccountRow]:
    """All accounts, oldest first."""
    return [AccountRow(*row) for row in connection.execute(_ACCOUNTS)]


def insert_key(connection: Connection, row: KeyRow) -> None:
    """Store a new key."""
    connection.execute(
        insert(api_keys),
        {
            "id": row.id,
            "account_id": row.account_id,
            "name": row.name,
            "lookup": row.lookup,
            "digest": row.digest,
            "create_time_ms": row.create_time_ms,
            "scopes": row.scopes,
            "expire_time_ms": row.expire_time_ms,
        },
    )


def find_keys(connection: Connection, lookup: str) -> list[KeyRow]:
    """The keys, revoked ones too, whose digest begins with ``lookup``: nearly always none or one."""
    return [KeyRow(*row) for row in connection.execute(_KEYS_BY_LOOKUP, {"lookup": lookup})]


def is_key_live(connection: Connection, key_id: str, *, now_ms: int) -> bool:
    """Whether the key exists, was not revoked and has not expired."""
    return connection.execute(_LIVE_KEY, {"key_id": key_id, "now_ms": now_ms}).one_or_none() is not None


def count_live_keys(connection: Connection, account_id: str, *, now_ms: int) -> int:
    """How many keys of the account were neither revoked nor have expired."""
    count: int = connection.execute(_COUNT_LIVE_KEYS, {"account_id": account_id, "now_ms": now_ms}).scalar_one()
    return count


def list_keys(connection: Connection, account_id: str) -> list[KeyRow]:
    """All keys of the account, oldest first."""
    return [KeyRow(*row) for row in connection.execute(_KEYS_OF_ACCOUNT, {"account_id": account_id})]


def find_key(connection: Connection, key_id: str) -> KeyRow | None:
    """The key of that id."""
    row = connection.execute(_KEY.where(api_keys.c.id == key_id)).one_or_none()
    return None if row is None else KeyRow(*row)


def revoke_key(connection: Connection, key_id: str, *, now_ms: int) -> None:
    """Mark the key as revoked, once: the first revocation's time stays."""
    connection.execute(_REVOKE, {"key_id": key_id, "now_ms": now_ms})
