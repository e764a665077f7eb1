"""Accounts and their keys. Made at first start and by the command line, so these work without an event loop."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.errors import ConflictError, NotFoundError, UnauthorizedError
from outgate.control.ids import IdMaker, IdPrefix
from outgate.control.secrets_at_rest import digest_secret, make_key, parse_key
from outgate.control.services import Services
from outgate.control.texts import parse_name
from outgate.control.transactions import read_as
from outgate.store import accounts as rows
from outgate.store.accounts import AccountRow, KeyRow
from outgate.store.database import Database

FIRST_ACCOUNT_NAME: Final = "default"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is shown once: ``api_key`` is stored nowhere."""

    account_id: str
    key_id: str
    api_key: str


def create_account(database: Database, ids: IdMaker, name: str, now_ms: int) -> NewKey:
    """A new account with a first key. Raises InvalidValueError and ConflictError (the name is taken)."""
    api_key = make_key()
    return database.write_now(lambda tx: _create_account(tx, ids, parse_name(name), api_key, now_ms))


def ensure_first_key(database: Database, ids: IdMaker, chosen: str | None, now_ms: int) -> NewKey | None:
    """Make the first account and its key in an empty store; None when there is an account already.

    ``chosen``: the key that the operator wants, or None for a generated one. A chosen key that the first account
    does not have yet is added to it, so that setting it later works too. Raises InvalidValueError.
    """
    api_key = make_key() if chosen is None else parse_key(chosen)

    def ensure(tx: Connection) -> NewKey | None:
        accounts = rows.list_accounts(tx)
        if not accounts:
            return _create_account(tx, ids, FIRST_ACCOUNT_NAME, api_key, now_ms)
        if chosen is None or _is_known(tx, api_key):
            return None
        key = NewKey(accounts[0].id, ids.make(IdPrefix.KEY, now_ms), api_key)
        return _insert_key(tx, key, "OUTGATE_API_KEY", now_ms)

    return database.write_now(ensure)


def create_key(database: Database, ids: IdMaker, account: str, name: str, now_ms: int) -> NewKey:
    """Another key for the account of that id or name. Raises NotFoundError and InvalidValueError."""
    api_key = make_key()

    def create(tx: Connection) -> NewKey:
        key = NewKey(_find_account(tx, account).id, ids.make(IdPrefix.KEY, now_ms), api_key)
        return _insert_key(tx, key, parse_name(name), now_ms)

    return database.write_now(create)


def list_accounts(database: Database) -> list[AccountRow]:
    """All accounts, oldest first."""
    return database.read_now(rows.list_accounts)


def list_keys(database: Database, account: str) -> list[KeyRow]:
    """The keys of the account of that id or name, revoked ones too. Raises NotFoundError."""
    return database.read_now(lambda tx: rows.list_keys(tx, _find_account(tx, account).id))


def revoke_key(database: Database, key_id: str, now_ms: int) -> KeyRow:
    """Make the key worthless from now on; the key as it is then. May be called again. Raises NotFoundError."""

    def revoke(tx: Connection) -> KeyRow:
        rows.revoke_key(tx, key_id, now_ms=now_ms)
        key = rows.find_key(tx, key_id)
        if key is None:
            raise NotFoundError(f"There is no API key {key_id[:80]!r}; 'outgate key list' shows those there are.")
        return key

    return database.write_now(revoke)


async def get_account(services: Services, caller: Caller) -> AccountRow:
    """The caller's own account."""
    account = await read_as(services, caller, lambda tx: rows.find_account(tx, caller.account_id))
    if account is None:
        raise UnauthorizedError("The account of this API key no longer exists.")
    return account


def _create_account(tx: Connection, ids: IdMaker, name: str, api_key: str, now_ms: int) -> NewKey:
    if rows.find_account_by_name(tx, name) is not None:
        raise ConflictError(f"An account named {name!r} already exists; choose another name.", code="name_taken")
    account = AccountRow(ids.make(IdPrefix.ACCOUNT, now_ms), name, now_ms)
    rows.insert_account(tx, account)
    return _insert_key(tx, NewKey(account.id, ids.make(IdPrefix.KEY, now_ms), api_key), "first", now_ms)


def _insert_key(tx: Connection, key: NewKey, name: str, now_ms: int) -> NewKey:
    secret = digest_secret(key.api_key)
    rows.insert_key(tx, KeyRow(key.key_id, key.account_id, name, secret.lookup, secret.digest, now_ms, None))
    return key


def _is_known(tx: Connection, api_key: str) -> bool:
    """Whether the key exists, revoked or not: a revoked key does not come back by a setting."""
    secret = digest_secret(api_key)
    return any(secret.equals(key.digest) for key in rows.find_keys(tx, secret.lookup))


def _find_account(tx: Connection, account: str) -> AccountRow:
    found = rows.find_account(tx, account) or rows.find_account_by_name(tx, account)
    if found is None:
        raise NotFoundError(f"There is no account {account[:80]!r}; 'outgate account create' makes one.")
    return found
