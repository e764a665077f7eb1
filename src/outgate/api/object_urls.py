"""Pre-signed URLs of storage objects: where they lead, and how they are read back."""

import re
from typing import Final
from urllib.parse import urlencode

from fastapi import Request

from outgate.control.object_tickets import ObjectTicket
from outgate.errors import InvalidValueError

TRANSFER_PATH: Final = "/v1/object-transfers"
_HOST: Final = re.compile(r"[A-Za-z0-9._~\-]+(?::[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?\Z", re.ASCII)


def render_transfer_url(request: Request, ticket: ObjectTicket, public_url: str | None) -> str:
    """The URL by which the holder of ``ticket`` puts or gets the bytes.

    It leads where ``request`` came in, unless a setting names another place. Raises InvalidValueError when the
    request does not say where that was.
    """
    query = urlencode({"expires_ms": ticket.expire_time_ms, "signature": ticket.signature})
    return f"{public_url or _reached(request)}{TRANSFER_PATH}/{ticket.object_id}?{query}"


def _reached(request: Request) -> str:
    host = request.headers.get("host", "")
    if not _HOST.match(host):
        raise InvalidValueError("The Host header is missing or is no host; URLs are made of it.", field="Host")
    # Whoever sends a wrong one gets a URL that does not work, and nobody else does.
    forwarded = request.headers.get("x-forwarded-proto", "")
    scheme = forwarded if forwarded in ("http", "https") else request.url.scheme
    return f"{scheme}://{host}"
