"""Message heads on their way through the front: what is ours, what belongs to one hop, and what is passed on."""

from collections.abc import Collection, Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

TUNNEL_HOST: Final = b"x-runloop-host"
"""Names the tunnel where the caller has to keep another Host."""
TUNNEL_AUTHORIZATION: Final = b"x-runloop-tunnel-authorization"
AUTHORIZATION: Final = b"authorization"

# RFC 9110 §7.6.1, and Proxy-Connection, which is none of the standard's and is sent all the same.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
OURS: Final = frozenset({TUNNEL_HOST, TUNNEL_AUTHORIZATION})
"""Said to the front by whoever calls a tunnel."""
_REPLACED: Final = frozenset({b"x-forwarded-proto", b"expect"})
_WEBSOCKET: Final = b"websocket"


def is_websocket(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a head asks for, or agrees to, a WebSocket (RFC 6455 §4.1)."""
    upgrades, connection = b"", b""
    for name, value in headers:
        if name.lower() == b"upgrade":
            upgrades += b"," + value
        elif name.lower() == b"connection":
            connection += b"," + value
    return _WEBSOCKET in _tokens(upgrades) and b"upgrade" in _tokens(connection)


def request_headers(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    scheme: str,
    peer: str | None,
    is_chunked: bool,
    is_upgrade: bool,
    without: Collection[bytes],
) -> Headers:
    """What the devbox gets of a request's headers: all but those of the hop, and ``without``.

    ``peer`` is the client's address where it has one; a devbox has none, and what it says of one is made up.
    The connection carries one request and closes behind it.
    """
    given = list(headers)
    dropped = _HOP_BY_HOP | _REPLACED | _named_by_connection(given) | frozenset(without)
    passed = [(name, value) for name, value in given if name.lower() not in dropped]
    earlier = [value for name, value in passed if name.lower() == b"x-forwarded-for"]
    passed = [(name, value) for name, value in passed if name.lower() != b"x-forwarded-for"]
    if peer is not None:
        passed.append((b"X-Forwarded-For", b", ".join([*earlier, peer.encode("ascii")])))
    passed.append((b"X-Forwarded-Proto", scheme.encode("ascii")))
    if is_upgrade:
        return [*passed, (b"Connection", b"Upgrade"), (b"Upgrade", _WEBSOCKET)]
    if is_chunked:
        passed.append((b"Transfer-Encoding", b"chunked"))
    return [*passed, (b"Connection", b"close")]


def response_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What the client gets of a response's headers: all but those of the hop.

    A length beside a transfer coding counts for nothing (RFC 9112 §6.3), and goes with it: left alone it would be a
    promise that the body need not keep, and the client would take the next response for the rest of this one.
    """
    given = list(headers)
    dropped = _HOP_BY_HOP | _named_by_connection(given)
    if any(name.lower() == b"transfer-encoding" for name, _ in given):
        dropped |= {b"content-length"}
    return [(name, value) for name, value in given if name.lower() not in dropped]


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    named: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            named |= _tokens(value)
    return named


def _tokens(value: bytes) -> set[bytes]:
    return {part.strip().lower() for part in value.split(b",")}
