"""What the clients share: where a peer is, how it is reached, and what its errors become."""

from pathlib import Path
from typing import Final

import httpx

from outgate.errors import OutgateError

_UNIX: Final = "unix:"
_CONNECT_WAIT_S: Final = 5.0
_MESSAGE_LENGTH_MAX: Final = 500
_LIMITS: Final = httpx.Limits(max_connections=4000, max_keepalive_connections=64)
"""Each wait for an execution holds a connection; four accounts' worth of them at the api's own bound."""


class PeerUnreachableError(OutgateError):
    """The peer does not answer: it is not running, or it broke off. Worth another try."""

    code = "peer_unreachable"


class PeerRefusedError(OutgateError):
    """The peer answered with an error. ``status`` is its HTTP status, ``code`` its own code."""

    code = "peer_refused"

    def __init__(self, message: str, *, status: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.status = status


def unix_url(path: Path) -> str:
    """How a unix socket is written where a peer's place is expected."""
    return f"{_UNIX}{path}"


def open_async_client(place: str, token: str | None, *, timeout_s: float) -> httpx.AsyncClient:
    """A client of the peer at ``place`` (``unix:/path`` or ``http://host:port``) that shows ``token``, if there is one.

    The environment's proxy variables are not followed: internal traffic stays on this host.
    """
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    timeout = httpx.Timeout(timeout_s, connect=_CONNECT_WAIT_S)
    if place.startswith(_UNIX):
        transport = httpx.AsyncHTTPTransport(uds=place.removeprefix(_UNIX), limits=_LIMITS)
        return httpx.AsyncClient(
            transport=transport, base_url="http://host", headers=headers, timeout=timeout, trust_env=False
        )
    return httpx.AsyncClient(base_url=place, headers=headers, timeout=timeout, limits=_LIMITS, trust_env=False)


def checked(response: httpx.Response) -> bytes:
    """The body of a good answer. Raises :class:`PeerRefusedError` with the peer's own message otherwise."""
    if response.is_success:
        return response.content
    message, code = f"HTTP {response.status_code}", None
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        message = str(body.get("message", message))[:_MESSAGE_LENGTH_MAX]
        code = str(body["code"]) if "code" in body else None
    raise PeerRefusedError(message, status=response.status_code, code=code)
