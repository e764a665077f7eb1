"""Sessions of the console. A session is worth what its key is: both are read together."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from outgate.store.console_tables import console_sessions
from outgate.store.tables import api_keys


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. ``digest`` is the SHA-256 of its token. Times are Unix milliseconds."""

    digest: bytes
    account_id: str
    key_id: str
    create_time_ms: int
    seen_time_ms: int
    expire_time_ms: int


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that may be used, with what its key may do: ``scopes`` is JSON, or None for everything."""

    row: SessionRow
    scopes: str | None


_FIELDS: Final = tuple(SessionRow.__dataclass_fields__)
_LIVE: Final = (
    select(*(console_sessions.c[name] for name in _FIELDS), api_keys.c.scopes)
    .join(api_keys, api_keys.c.id == console_sessions.c.key_id)
    .where(
        console_sessions.c.digest == bindparam("digest"),
        console_sessions.c.expire_time_ms > bindparam("now_ms"),
        api_keys.c.revoke_time_ms.is_(None),
        or_(api_keys.c.expire_time_ms.is_(None), api_keys.c.expire_time_ms > bindparam("now_ms")),
    )
)
_EXTEND: Final = (
    update(console_sessions)
    .where(console_sessions.c.digest == bindparam("of"))
    .values(seen_time_ms=bindparam("seen_ms"), expire_time_ms=bindparam("until_ms"))
)


def insert_session(connection: Connection, row: SessionRow, *, keep_max: int) -> None:
    """Store a new session. Of the key's sessions the newest ``keep_max`` stay."""
    columns = console_sessions.c
    connection.execute(insert(console_sessions), {name: getattr(row, name) for name in _FIELDS})
    own = columns.key_id == row.key_id
    newest = select(columns.digest).where(own).order_by(columns.create_time_ms.desc(), columns.digest).limit(keep_max)
    kept = [found.digest for found in connection.execute(newest)]
    connection.execute(delete(console_sessions).where(own, columns.digest.not_in(kept)))


def find_live_session(connection: Connection, digest: bytes, *, now_ms: int) -> LiveSession | None:
    """The session, unless it has ended or its key is not valid any more."""
    found = connection.execute(_LIVE, {"digest": digest, "now_ms": now_ms}).one_or_none()
    return None if found is None else LiveSession(SessionRow(*found[:-1]), found.scopes)


def extend_session(connection: Connection, digest: bytes, *, seen_ms: int, until_ms: int) -> None:
    """The session was used at ``seen_ms`` and lasts until ``until_ms``."""
    connection.execute(_EXTEND, {"of": digest, "seen_ms": seen_ms, "until_ms": until_ms})


def delete_session(connection: Connection, digest: bytes) -> None:
    """End the session, if there is one."""
    connection.execute(delete(console_sessions).where(console_sessions.c.digest == digest))


def delete_ended_sessions(connection: Connection, *, now_ms: int, limit: int) -> int:
    """Forget at most ``limit`` sessions whose time is over; how many they were."""
    columns = console_sessions.c
    ended = select(columns.digest).where(columns.expire_time_ms <= now_ms).limit(limit)
    return connection.execute(delete(console_sessions).where(columns.digest.in_(ended))).rowcount
