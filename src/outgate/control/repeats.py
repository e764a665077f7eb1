"""Repeated requests: what ``x-request-id`` promises.

Clients send the same key with every retry of one call. A key is remembered in the transaction of the effect, so
either both are stored or neither; what failed is therefore never replayed. It counts for one account, method and
path, for 24 hours, and only as long as the thing it made is still there.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection

from outgate.control.errors import ConflictError
from outgate.control.services import Services
from outgate.store.requests import (
    RequestRow,
    claim_request,
    forget_oldest_requests,
    forget_requests_before,
    replace_request,
)

RETENTION_MS: Final = 24 * 3600 * 1000
REMEMBERED_MAX: Final = 1_000_000
"""Some 150 MB; reached only by a thousand changes a second for a quarter of an hour. The oldest go first."""
_BATCH: Final = 5_000
"""Rows per cleaning transaction: a few milliseconds, so that no writer waits for the cleaning."""


class _Deletable(Protocol):
    @property
    def delete_time_ms(self) -> int | None: ...


T = TypeVar("T")
D = TypeVar("D", bound=_Deletable)


@dataclass(frozen=True, slots=True)
class RequestKey:
    """One call, however often it is sent."""

    digest: bytes
    body_digest: bytes


def make_request_key(account_id: str, method: str, path: str, key: str, body: bytes) -> RequestKey:
    """The identity of a call: account, method, path and the client's key; and what its body was."""
    named = f"{account_id}\n{method}\n{path}\n{key}"
    return RequestKey(hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest(), hashlib.sha256(body).digest())


def claim(tx: Connection, request: RequestKey | None, resource_id: str, now_ms: int) -> str | None:
    """Remember, with its effect, that this call makes ``resource_id``; or the id of what it made before.

    Raises ConflictError when the key was used with another body: to answer with what the other body made
    would tell the caller that rules are in force which are not.
    """
    if request is None:
        return None
    row = RequestRow(request.digest, request.body_digest, resource_id, now_ms)
    known = claim_request(tx, row)
    if known is None:
        return None
    if known.time_ms <= now_ms - RETENTION_MS:
        replace_request(tx, row)
        return None
    if known.body_digest != request.body_digest:
        message = "This x-request-id was already used with another body; use a new one for a new request."
        raise ConflictError(message, code="request_id_reused")
    return known.resource_id


def claim_new(
    tx: Connection, request: RequestKey | None, resource_id: str, now_ms: int, find_live: Callable[[str], T | None]
) -> T | None:
    """What this call made before, if that is still there; else None: it makes ``resource_id``, which is remembered.

    ``find_live`` returns what goes by an id, None when it is gone. Raises what :func:`claim` raises.
    """
    made = claim(tx, request, resource_id, now_ms)
    if request is None or made is None:
        return None
    known = find_live(made)
    if known is None:
        replace_request(tx, RequestRow(request.digest, request.body_digest, resource_id, now_ms))
    return known


def unless_deleted(row: D | None) -> D | None:
    """``row``, if there is one that was not deleted."""
    return None if row is None or row.delete_time_ms is not None else row


async def forget_old_requests(services: Services, now_ms: int) -> int:
    """One batch of cleaning; how many were forgotten. Zero means that there is nothing left to clean."""

    def clean(connection: Connection) -> int:
        expired = forget_requests_before(connection, now_ms - RETENTION_MS, limit=_BATCH)
        return expired or forget_oldest_requests(connection, keep_max=REMEMBERED_MAX, limit=_BATCH)

    return await services.database.write(clean)
