"""What repeated requests did the first time: the memory behind ``x-request-id``."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from outgate.store.tables import requests


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request that succeeded. ``digest`` names account, method, path and key; ``body_digest`` the body."""

    digest: bytes
    body_digest: bytes
    resource_id: str
    time_ms: int


_FIND: Final = select(requests).where(requests.c.digest == bindparam("digest"))
_INSERT_IF_NEW: Final = {
    "sqlite": sqlite.insert(requests).on_conflict_do_nothing().returning(requests.c.time_ms),
    "postgresql": postgresql.insert(requests).on_conflict_do_nothing().returning(requests.c.time_ms),
}
_REPLACE: Final = (
    update(requests)
    .where(requests.c.digest == bindparam("known"))
    .values(
        body_digest=bindparam("new_body_digest"),
        resource_id=bindparam("new_resource_id"),
        time_ms=bindparam("now_ms"),
    )
)
_COUNT: Final = select(func.count()).select_from(requests)


def claim_request(connection: Connection, row: RequestRow) -> RequestRow | None:
    """Remember ``row``, in the transaction of its effect, unless its digest is known: then what is known.

    Of two transactions that claim the same digest at once, the second waits for the first.
    """
    claimed = connection.execute(
        _INSERT_IF_NEW[connection.dialect.name],
        {
            "digest": row.digest,
            "body_digest": row.body_digest,
            "resource_id": row.resource_id,
            "time_ms": row.time_ms,
        },
    ).one_or_none()
    if claimed is not None:
        return None
    known = connection.execute(_FIND, {"digest": row.digest}).one_or_none()
    # Forgotten by the sweeper in between: as good as new.
    return None if known is None else RequestRow(*known)


def replace_request(connection: Connection, row: RequestRow) -> None:
    """Remember ``row`` in place of what is known under its digest."""
    connection.execute(
        _REPLACE,
        {
            "known": row.digest,
            "new_body_digest": row.body_digest,
            "new_resource_id": row.resource_id,
            "now_ms": row.time_ms,
        },
    )


def forget_requests_before(connection: Connection, time_ms: int, *, limit: int) -> int:
    """Forget at most ``limit`` requests older than ``time_ms``; how many they were."""
    oldest = select(requests.c.digest).where(requests.c.time_ms < time_ms).order_by(requests.c.time_ms).limit(limit)
    return connection.execute(delete(requests).where(requests.c.digest.in_(oldest))).rowcount


def forget_oldest_requests(connection: Connection, *, keep_max: int, limit: int) -> int:
    """Forget the oldest, at most ``limit``, so that about ``keep_max`` remain; how many they were."""
    excess: int = connection.execute(_COUNT).scalar_one() - keep_max
    if excess <= 0:
        return 0
    oldest = select(requests.c.digest).order_by(requests.c.time_ms).limit(min(excess, limit))
    return connection.execute(delete(requests).where(requests.c.digest.in_(oldest))).rowcount
