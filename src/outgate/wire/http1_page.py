"""What a devbox reads when its plain HTTP request is refused: which policy, why, which host."""

from enum import IntEnum
from typing import Final

from outgate.model.verdict import Deny

_REASON_PHRASES: Final = {400: b"Bad Request", 403: b"Forbidden", 421: b"Misdirected Request"}


class RefusalStatus(IntEnum):
    """Which answer a refused request gets."""

    BAD_REQUEST = 400
    FORBIDDEN = 403
    MISDIRECTED = 421
    """RFC 9110 §15.5.20: allowed, but not on this connection; the client may ask again on another."""


def render_refusal(status: RefusalStatus, policy_name: str, deny: Deny, host: str | None, *, with_body: bool) -> bytes:
    """A complete response that closes the connection. ``with_body`` is False in answer to HEAD."""
    lines = [
        "Outgate refused this request.",
        "",
        f"policy: {_plain(policy_name)}",
        f"host:   {_plain(host or '(none)')}",
        f"reason: {deny.reason}",
        f"rule:   {_plain(str(deny.rule)) if deny.rule is not None else '(no rule covers it; the default is deny)'}",
        "",
        _plain(deny.sentence),
        "",
    ]
    body = "\n".join(lines).encode("utf-8")
    head = (
        b"HTTP/1.1 %d %b\r\n"
        b"content-type: text/plain; charset=utf-8\r\n"
        b"content-length: %d\r\n"
        b"cache-control: no-store\r\n"
        b"x-outgate-reason: %b\r\n"
        b"connection: close\r\n\r\n" % (status, _REASON_PHRASES[status], len(body), str(deny.reason).encode("ascii"))
    )
    return head + body if with_body else head


def _plain(text: str) -> str:
    """One printable line: a policy's name is its author's and must not add lines to the page."""
    return "".join(character if character.isprintable() else "?" for character in text)
