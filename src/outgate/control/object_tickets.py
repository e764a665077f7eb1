"""Leave to put or get one object's bytes without an API key, for a while: what a pre-signed URL carries."""

import base64
import binascii
import hmac
from dataclasses import dataclass
from enum import StrEnum

from outgate.control.errors import ForbiddenError
from outgate.control.secret_values import KeyRing


class TransferKind(StrEnum):
    """What a ticket allows."""

    UPLOAD = "upload"
    DOWNLOAD = "download"


@dataclass(frozen=True, slots=True)
class ObjectTicket:
    """``signature`` proves that this installation gave it out. ``expire_time_ms`` is Unix time."""

    kind: TransferKind
    object_id: str
    expire_time_ms: int
    signature: str


def make_ticket(keys: KeyRing, kind: TransferKind, object_id: str, expire_time_ms: int) -> ObjectTicket:
    """A ticket that :func:`check_ticket` takes until it expires."""
    signature = base64.urlsafe_b64encode(_sign(keys, kind, object_id, expire_time_ms)).decode().rstrip("=")
    return ObjectTicket(kind, object_id, expire_time_ms, signature)


def check_ticket(keys: KeyRing, ticket: ObjectTicket, now_ms: int) -> None:
    """Raise ForbiddenError for a ticket that is not one of ours, or not any more."""
    expected = _sign(keys, ticket.kind, ticket.object_id, ticket.expire_time_ms)
    if not hmac.compare_digest(expected, _decode(ticket.signature)):
        raise ForbiddenError(f"This URL is not valid for this {ticket.kind}; ask the API for a new one.")
    if now_ms >= ticket.expire_time_ms:
        raise ForbiddenError(f"This URL has expired; ask the API for a new {ticket.kind} URL.", code="url_expired")


def _sign(keys: KeyRing, kind: TransferKind, object_id: str, expire_time_ms: int) -> bytes:
    return keys.sign("object", kind, object_id, str(expire_time_ms))


def _decode(signature: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    except (binascii.Error, ValueError):
        return b""
