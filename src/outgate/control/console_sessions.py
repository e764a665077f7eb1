"""Sessions of the console: begun with an API key, which is not kept, and worth no more than that key.

The browser holds a token of 256 bits of chance, the store its digest. A session ends when nobody used it for
IDLE_MS, at the latest LIFE_MS after it began, when somebody signs out, and with its key.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from outgate.control.authentication import authenticate
from outgate.control.callers import Caller
from outgate.control.scopes import decode_scopes
from outgate.control.secrets_at_rest import digest_secret
from outgate.control.services import Services
from outgate.store.accounts import find_account, find_key
from outgate.store.console_sessions import (
    LiveSession,
    SessionRow,
    delete_ended_sessions,
    delete_session,
    extend_session,
    find_live_session,
    insert_session,
)

IDLE_MS: Final = 8 * 3_600_000
"""A working day: whoever left in the evening signs in again."""
LIFE_MS: Final = 7 * 86_400_000
"""However busy it is: a stolen token does not last for ever."""
SEEN_EVERY_MS: Final = 60_000
"""How coarsely a session's use is stored, so that each page is no write."""
SESSIONS_MAX: Final = 100
"""Of one key: browsers that were closed without signing out."""
_TOKEN_BYTES: Final = 32
_TOKEN_LENGTH_MAX: Final = 128
_FORGOTTEN_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. ``form_token`` is in each form of this session and in no other's."""

    caller: Caller
    account_name: str
    key_name: str
    token: str = field(repr=False)
    form_token: str = field(repr=False)


async def sign_in(services: Services, key: str, client: str, now_ms: int) -> str:
    """The token of a new session for ``key``, shown by ``client``.

    Raises UnauthorizedError and TooManyAttemptsError, as each request with that key would.
    """
    caller = await authenticate(services, key, client)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    row = SessionRow(
        digest=digest_secret(token).digest,
        account_id=caller.account_id,
        key_id=caller.key_id,
        create_time_ms=now_ms,
        seen_time_ms=now_ms,
        expire_time_ms=now_ms + IDLE_MS,
    )
    await services.database.write(lambda tx: insert_session(tx, row, keep_max=SESSIONS_MAX))
    return token


async def find_session(services: Services, token: str, now_ms: int) -> Session | None:
    """The session of that token, or None when it has ended, its key is not valid any more, or there never was one."""
    if not token or len(token) > _TOKEN_LENGTH_MAX:
        return None
    digest = digest_secret(token).digest

    def read(tx: Connection) -> tuple[LiveSession, Session] | None:
        live = find_live_session(tx, digest, now_ms=now_ms)
        return None if live is None else (live, _open(tx, live, token))

    found = await services.database.read(read)
    if found is None:
        return None
    live, session = found
    row = live.row
    if now_ms - row.seen_time_ms >= SEEN_EVERY_MS:
        until_ms = min(now_ms + IDLE_MS, row.create_time_ms + LIFE_MS)
        await services.database.write(lambda tx: extend_session(tx, row.digest, seen_ms=now_ms, until_ms=until_ms))
    return session


def _open(tx: Connection, live: LiveSession, token: str) -> Session:
    row = live.row
    account, key = find_account(tx, row.account_id), find_key(tx, row.key_id)
    return Session(
        caller=Caller(row.account_id, row.key_id, None if live.scopes is None else decode_scopes(live.scopes)),
        account_name="" if account is None else account.name,
        key_name="" if key is None else key.name,
        token=token,
        form_token=make_form_token(token),
    )


async def is_signed_in(services: Services, token: str, now_ms: int) -> bool:
    """Whether the session of that token may still be used. Looking is no use of it."""
    digest = digest_secret(token).digest
    return await services.database.read(lambda tx: find_live_session(tx, digest, now_ms=now_ms)) is not None


async def sign_out(services: Services, token: str) -> None:
    """End the session of that token, if there is one."""
    digest = digest_secret(token).digest
    await services.database.write(lambda tx: delete_session(tx, digest))


def make_form_token(token: str) -> str:
    """What forms carry to show that they were made for the holder of ``token``, which it does not give away."""
    return hmac.new(token.encode(), b"outgate console form", "sha256").hexdigest()


def is_form_token(shown: str, token: str) -> bool:
    """Whether ``shown`` is :func:`make_form_token` of ``token``, in a time that does not tell where they differ."""
    return hmac.compare_digest(shown.encode(), make_form_token(token).encode())


async def forget_ended_sessions(services: Services, now_ms: int) -> int:
    """Forget sessions whose time is over, one batch; how many they were."""
    return await services.database.write(lambda tx: delete_ended_sessions(tx, now_ms=now_ms, limit=_FORGOTTEN_BATCH))
