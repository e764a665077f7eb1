"""API keys that are made over the API: full ones, and restricted ones.

A key is shown once and stored as a digest. A call that is sent again must show the same key again, so a key that is
made under an ``x-request-id`` is derived from that call's digest and the key's id, under the installation's own key:
nobody else can work it out, and it needs to be stored nowhere.
"""

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.ids import IdPrefix
from outgate.control.repeats import claim_new
from outgate.control.scopes import check_caller, check_no_wider, encode_scopes
from outgate.control.secrets_at_rest import KEY_PREFIX, RESTRICTED_KEY_PREFIX, derive_key, digest_secret
from outgate.control.services import Services
from outgate.control.texts import parse_short_text
from outgate.control.transactions import write_as
from outgate.errors import InvalidValueError
from outgate.model.scopes import Scopes
from outgate.store.accounts import KeyRow, count_live_keys, find_key, insert_key
from outgate.store.policies import lock_account

_CHANCE_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class KeyInput:
    """A create body. ``scopes``: None for a key that may do everything. ``expires_at_ms`` is Unix time."""

    name: str = ""
    expires_at_ms: int | None = None
    scopes: Scopes | None = None


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key as it is shown to whoever made it, and to nobody else."""

    row: KeyRow
    api_key: str
    scopes: Scopes | None


async def create_api_key(services: Services, call: Call, given: KeyInput) -> CreatedKey:
    """A new key of the caller's account.

    Raises InvalidValueError (also at the account's limit), and ForbiddenError when it could do more than the
    caller's own key.
    """
    name = parse_short_text(given.name, field="name")
    if given.expires_at_ms is not None and given.expires_at_ms <= call.now_ms:
        message = f"{given.expires_at_ms} lies in the past; give Unix milliseconds later than {call.now_ms}."
        raise InvalidValueError(message, field="expires_at_ms")
    if given.scopes is None:
        check_caller(call.caller, None)
    else:
        check_no_wider(call.caller, given.scopes)

    def create(tx: Connection) -> CreatedKey:
        def find_live(made: str) -> KeyRow | None:
            row = find_key(tx, made)
            return None if row is None or row.revoke_time_ms is not None else row

        key_id = services.ids.make(IdPrefix.KEY, call.now_ms)
        known = claim_new(tx, call.request, key_id, call.now_ms, find_live)
        if known is not None:
            return CreatedKey(known, _make_key(services, call, known.id, given), given.scopes)
        lock_account(tx, call.account_id)
        keys_max = services.settings.keys_max
        if count_live_keys(tx, call.account_id, now_ms=call.now_ms) >= keys_max:
            message = f"The account already has {keys_max} API keys, the most it may have; revoke one first."
            raise InvalidValueError(message, code="key_limit")
        api_key = _make_key(services, call, key_id, given)
        digest = digest_secret(api_key)
        row = KeyRow(
            id=key_id,
            account_id=call.account_id,
            name=name,
            lookup=digest.lookup,
            digest=digest.digest,
            create_time_ms=call.now_ms,
            revoke_time_ms=None,
            scopes=None if given.scopes is None else encode_scopes(given.scopes),
            expire_time_ms=given.expires_at_ms,
        )
        insert_key(tx, row)
        return CreatedKey(row, api_key, given.scopes)

    return await write_as(services, call.caller, create)


def _make_key(services: Services, call: Call, key_id: str, given: KeyInput) -> str:
    prefix = KEY_PREFIX if given.scopes is None else RESTRICTED_KEY_PREFIX
    if call.request is None:
        return derive_key(prefix, secrets.token_bytes(_CHANCE_BYTES))
    return derive_key(prefix, services.keys.sign("api key", call.request.digest.hex(), key_id))
