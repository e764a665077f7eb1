"""Secrets: values that devboxes get as environment variables, and that nobody gets to see again otherwise."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import structlog
from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.errors import NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.repeats import claim, claim_new, unless_deleted
from outgate.control.secret_values import KeyRing, SealedValueError, make_key_file, read_key_file
from outgate.control.services import Services
from outgate.control.texts import parse_name, parse_text
from outgate.control.transactions import read_as, write_as
from outgate.control.variables import parse_variable
from outgate.errors import InvalidValueError, SettingError
from outgate.model.desired import DevboxDocument
from outgate.store.database import Database
from outgate.store.policies import lock_account
from outgate.store.secrets import (
    SecretRow,
    count_secrets,
    find_secret,
    find_secret_by_name,
    find_secret_by_name_locked,
    find_secret_locked,
    find_secrets_by_name,
    has_secrets_under_other_keys,
    insert_secret,
    list_secrets,
    save_secret,
)
from outgate.store.webhooks import has_webhooks_under_other_keys

VALUE_LENGTH_MAX: Final = 65_536
"""Linux takes no environment string longer than 131,072 bytes (MAX_ARG_STRLEN), name included."""
BINDINGS_MAX: Final = 100
"""Secrets that one devbox may be given."""

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SecretPage:
    """The newest secrets. ``total_count`` counts all of them."""

    secrets: tuple[SecretRow, ...]
    has_more: bool
    total_count: int


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Which secret is meant: exactly one of the two is set."""

    id: str | None = None
    name: str | None = None


def load_keys(database: Database, path: Path, *, is_given: bool) -> KeyRing:
    """The keys of the file; a missing one is made, unless the operator named it or secrets wait for the lost one.

    Raises SettingError when there is no key, or none that opens what is stored.
    """
    keys = read_key_file(path)
    if keys is None:
        if is_given:
            raise SettingError(f"{path}, the key of secrets, does not exist; make it (openssl rand -base64 32).")
        if database.read_now(lambda tx: _has_other_keys(tx, "")):
            raise SettingError(f"{path}, the key of the stored secrets, is missing; put it back from a backup.")
        return make_key_file(path)
    fingerprint = keys.fingerprint
    if database.read_now(lambda tx: _has_other_keys(tx, fingerprint)):
        raise SettingError(f"{path} is not the key under which the secrets are stored; put the right one back.")
    return keys


def check_keys(tx: Connection, keys: KeyRing) -> None:
    """Raise SealedValueError when something is stored under another key."""
    if _has_other_keys(tx, keys.fingerprint):
        # Another api process was started with another key file; a store under two keys would open for nobody.
        raise SealedValueError("The stored secrets are under another key than this api process has; nothing changed.")


def _has_other_keys(tx: Connection, fingerprint: str) -> bool:
    return has_secrets_under_other_keys(tx, fingerprint) or has_webhooks_under_other_keys(tx, fingerprint)


async def create_secret(services: Services, call: Call, name: str, value: str) -> SecretRow:
    """A new secret. Raises InvalidValueError, also for a name that is taken and at the account's limit."""
    parse_variable(parse_name(name), field="name")
    _check_value(value)
    call = _blinded(services, call)
    return await write_as(services, call.caller, lambda tx: _create(tx, services, call, name, value))


def _create(tx: Connection, services: Services, call: Call, name: str, value: str) -> SecretRow:
    secret_id = services.ids.make(IdPrefix.SECRET, call.now_ms)
    known = claim_new(
        tx, call.request, secret_id, call.now_ms, lambda made: unless_deleted(find_secret(tx, call.account_id, made))
    )
    if known is not None:
        return known
    lock_account(tx, call.account_id)
    if find_secret_by_name(tx, call.account_id, name) is not None:
        message = f"A secret named {name!r} already exists; update it, or choose another name."
        raise InvalidValueError(message, field="name", code="name_taken")
    secrets_max = services.settings.secrets_max
    if count_secrets(tx, call.account_id) >= secrets_max:
        message = f"The account already has {secrets_max} secrets, the most it may have; delete one first."
        raise InvalidValueError(message, code="secret_limit")
    row = SecretRow(
        id=secret_id,
        account_id=call.account_id,
        name=name,
        sealed=b"",
        key_fingerprint="",
        create_time_ms=call.now_ms,
        update_time_ms=call.now_ms,
        delete_time_ms=None,
    )
    sealed = _seal(tx, services, row, value)
    insert_secret(tx, sealed)
    return sealed


async def update_secret(services: Services, call: Call, which: SecretReference, value: str) -> SecretRow:
    """The secret with another value, which devboxes get when they start. Raises NotFoundError, InvalidValueError."""
    _check_value(value)
    call = _blinded(services, call)

    def change(tx: Connection) -> SecretRow:
        row = _find_live_locked(tx, call.account_id, which)
        if claim(tx, call.request, row.id, call.now_ms) is not None:
            return row
        # The clock may step back between two updates; a secret's own time does not.
        changed = replace(row, update_time_ms=max(call.now_ms, row.update_time_ms))
        sealed = _seal(tx, services, changed, value)
        save_secret(tx, sealed)
        return sealed

    return await write_as(services, call.caller, change)


async def delete_secret(services: Services, call: Call, which: SecretReference) -> SecretRow:
    """What the secret was last; its value is gone. Raises NotFoundError."""

    def delete(tx: Connection) -> SecretRow:
        row = _find_locked(tx, call.account_id, which)
        repeated = claim(tx, call.request, "" if row is None else row.id, call.now_ms)
        if repeated is not None:
            gone = find_secret(tx, call.account_id, repeated)
            if gone is not None:
                return gone
        if row is None or row.delete_time_ms is not None:
            raise _not_found(which)
        save_secret(tx, replace(row, sealed=b"", key_fingerprint="", delete_time_ms=call.now_ms))
        return row

    return await write_as(services, call.caller, delete)


async def get_secret(services: Services, caller: Caller, which: SecretReference) -> SecretRow:
    """The caller's secret. Raises NotFoundError."""

    def read(tx: Connection) -> SecretRow:
        row = find_live_secret(tx, caller.account_id, which)
        if row is None:
            raise _not_found(which)
        return row

    return await read_as(services, caller, read)


async def page_secrets(services: Services, caller: Caller, *, limit: int) -> SecretPage:
    """At most ``limit`` of the caller's secrets, newest first."""

    def read(tx: Connection) -> SecretPage:
        rows = list_secrets(tx, caller.account_id, limit=limit + 1)
        return SecretPage(tuple(rows[:limit]), len(rows) > limit, count_secrets(tx, caller.account_id))

    return await read_as(services, caller, read)


def find_live_secret(tx: Connection, account_id: str, which: SecretReference) -> SecretRow | None:
    """The account's secret, or None; deleted ones do not count."""
    if which.name is not None:
        return find_secret_by_name(tx, account_id, which.name) if _is_storable(which.name) else None
    row = find_secret(tx, account_id, which.id) if which.id and is_id(IdPrefix.SECRET, which.id) else None
    return None if row is None or row.delete_time_ms is not None else row


def find_secret_reference(tx: Connection, account_id: str, reference: str, *, field: str) -> SecretRow:
    """The secret that an id or a name means. Raises InvalidValueError naming ``field``."""
    which = SecretReference(id=reference) if is_id(IdPrefix.SECRET, reference) else SecretReference(name=reference)
    row = find_live_secret(tx, account_id, which)
    if row is None:
        raise _unknown(reference, field)
    return row


def check_secrets(tx: Connection, account_id: str, bindings: Mapping[str, str], *, field: str) -> None:
    """Raise InvalidValueError unless each variable can have its name and each secret exists.

    ``bindings``: variable → name of the secret. ``field`` is the field of the body that holds them.
    """
    if len(bindings) > BINDINGS_MAX:
        message = f"{field} has {len(bindings)} entries; at most {BINDINGS_MAX} are allowed."
        raise InvalidValueError(message, field=field)
    for variable in bindings:
        parse_variable(variable, field=field)
    _find_bound(tx, account_id, bindings, field=field)


def resolve_secrets(
    tx: Connection, services: Services, account_id: str, bindings: Mapping[str, str], *, field: str
) -> dict[str, str]:
    """Variable → value. Raises InvalidValueError for a secret that does not exist, SealedValueError."""
    bound = _find_bound(tx, account_id, bindings, field=field)
    return {variable: open_secret(services, bound[name]) for variable, name in bindings.items()}


def render_secrets(tx: Connection, services: Services, document: DevboxDocument) -> DevboxDocument:
    """``document`` as its host reads it: with the values of its secrets in the environment, their names gone.

    A secret that was deleted since, or that cannot be opened, is left out and logged: one devbox must not keep
    policies of others from its host.
    """
    if not document.secrets:
        return document
    environment = dict(document.environment)
    found = find_secrets_by_name(tx, document.account_id, sorted(set(document.secrets.values())))
    for variable, name in document.secrets.items():
        try:
            environment[variable] = open_secret(services, found[name])
        except (KeyError, SealedValueError):
            _log.error("secret left out", devbox_id=document.id, variable=variable, secret=name)
    return msgspec.structs.replace(document, environment=environment, secrets={})


def open_secret(services: Services, row: SecretRow) -> str:
    """The value. Raises SealedValueError."""
    return services.keys.open(row.sealed, _owner(row))


def _find_bound(tx: Connection, account_id: str, bindings: Mapping[str, str], *, field: str) -> Mapping[str, SecretRow]:
    names = sorted({name for name in bindings.values() if _is_storable(name)})
    found = find_secrets_by_name(tx, account_id, names) if names else {}
    for variable, name in bindings.items():
        if name not in found:
            raise _unknown(name, f"{field}.{variable}")
    return found


def _unknown(name: str, field: str) -> InvalidValueError:
    message = f"There is no secret {name[:80]!r} in this account; create it first."
    return InvalidValueError(message, field=field, code="unknown_secret")


def _seal(tx: Connection, services: Services, row: SecretRow, value: str) -> SecretRow:
    keys = services.keys
    check_keys(tx, keys)
    return replace(row, sealed=keys.seal(value, _owner(row)), key_fingerprint=keys.fingerprint)


def _owner(row: SecretRow) -> str:
    return f"{row.account_id}/{row.id}"


def _check_value(value: str) -> None:
    if len(value.encode("utf-8", "replace")) > VALUE_LENGTH_MAX:
        message = f"The value is longer than {VALUE_LENGTH_MAX:,} bytes, the most a secret may have."
        raise InvalidValueError(message, field="value")
    parse_text(value, field="value", length_max=VALUE_LENGTH_MAX)


def _blinded(services: Services, call: Call) -> Call:
    """``call`` with its body's digest keyed: a plain one would let whoever reads the store try out short values."""
    if call.request is None:
        return call
    digest = hmac.digest(services.keys.sign("secret body"), call.request.body_digest, "sha256")
    return replace(call, request=replace(call.request, body_digest=digest))


def _find_locked(tx: Connection, account_id: str, which: SecretReference) -> SecretRow | None:
    if which.name is not None:
        return find_secret_by_name_locked(tx, account_id, which.name) if _is_storable(which.name) else None
    known = which.id is not None and is_id(IdPrefix.SECRET, which.id)
    return find_secret_locked(tx, account_id, which.id) if known and which.id is not None else None


def _find_live_locked(tx: Connection, account_id: str, which: SecretReference) -> SecretRow:
    row = _find_locked(tx, account_id, which)
    if row is None or row.delete_time_ms is not None:
        raise _not_found(which)
    return row


def _is_storable(name: str) -> bool:
    """Texts with a NUL, or half a character, do not reach the database: PostgreSQL refuses them with an error."""
    return name.isprintable()


def _not_found(which: SecretReference) -> NotFoundError:
    shown = (which.id or which.name or "")[:80]
    return NotFoundError(f"Secret {shown!r} not found.", code="secret_not_found")
