"""One HTTP/1 request head: read strictly, judged as a whole, written anew from what was read.

Two parsers that disagree about one byte are how a request is smuggled past a judge. h11 parses; the rules
here refuse what parsers are known to disagree on (RFC 9112 §11.2); and what goes upstream is written from the
parsed value and never copied from the client, so upstream sees exactly what was judged.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import h11

from outgate.errors import InvalidValueError
from outgate.model.names import NAME_LENGTH_MAX, DomainName, parse_domain_name

HEAD_BYTES_MAX: Final = 18 * 1024
"""Twice what common servers take by default (8 KiB), and the same as for a TLS hello."""
_REQUEST_LINE: Final = re.compile(rb"[^ \r\n]+ [^ \r\n]+ HTTP/1\.[01]\Z")
_BARE_CR_LF_NUL: Final = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")
_FOLD: Final = re.compile(rb"\r\n[ \t]")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+)(?::([0-9]{1,5}))?\Z", re.ASCII)
_ABSOLUTE: Final = re.compile(r"http://([^/?#]*)([^#]*)\Z", re.ASCII | re.IGNORECASE)
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}\Z")
_LENGTH_LINES: Final = re.compile(rb"\ncontent-length:[^\r]*", re.IGNORECASE)
_HOSTS_CACHED: Final = 4096
"""Programs name the same few hosts again and again; an entry is below 1 KiB."""


class MalformedRequestError(Exception):
    """The request is refused; ``detail`` says why in a few words."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Upgrade(Enum):
    """What the request asks the connection to become."""

    NONE = auto()
    WEBSOCKET = auto()


@dataclass(frozen=True, slots=True)
class RequestHead:
    """One request that passed. ``host`` is None when it names an address.

    ``wire`` is the head as it goes upstream. ``body_length`` counts the bytes that follow, None when they come
    in chunks.
    """

    method: bytes
    host: DomainName | None
    wire: bytes
    body_length: int | None
    upgrade: Upgrade


@dataclass(frozen=True, slots=True)
class _Authority:
    host: DomainName | None
    text: str
    """In normal form, with the port when one was given."""


def check_line_ends(data: bytes | bytearray, start: int, end: int) -> None:
    """Raise :class:`MalformedRequestError` when ``data[start:end]`` holds a bare LF, a bare CR or a NUL.

    A CR as the very last byte is no complaint yet.
    """
    match = _BARE_CR_LF_NUL.search(data, start, end)
    if match is not None:
        raise MalformedRequestError("bare CR, bare LF or NUL in the head")


def check_request_line(line: bytes) -> None:
    """Raise :class:`MalformedRequestError` for a first line that can be refused before the head is complete."""
    if line.startswith(b"PRI * HTTP/2"):
        raise MalformedRequestError("HTTP/2 without TLS is not relayed")
    if line.startswith(b"CONNECT "):
        raise MalformedRequestError("CONNECT is not relayed")
    if not _REQUEST_LINE.match(line):
        raise MalformedRequestError("not an HTTP/1.0 or HTTP/1.1 request line")


def read_head(head: bytes, connection: h11.Connection) -> RequestHead:
    """The request in ``head`` (up to and with the empty line).

    ``connection`` is a fresh h11 connection in the server's role; for a body in chunks it goes on to read them.
    Raises :class:`MalformedRequestError`.
    """
    if _FOLD.search(head):
        raise MalformedRequestError("folded header line")
    lengths = _LENGTH_LINES.findall(head)
    if len(lengths) > 1 or (lengths and b"," in lengths[0]):
        # h11 takes equal lengths as one; a server further on may not.
        raise MalformedRequestError("several Content-Lengths")
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise MalformedRequestError(_detail_of(error)) from None
    if not isinstance(event, h11.Request):
        raise MalformedRequestError("not a request")
    return _judge_syntax(event)


def _detail_of(error: h11.RemoteProtocolError) -> str:
    # h11 quotes the offending line; the first clause is enough and holds nothing of the client's.
    return str(error).partition(":")[0][:80]


def _judge_syntax(request: h11.Request) -> RequestHead:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        fields.setdefault(name, []).append(value)
    authority, target = _read_target(request, _read_host(fields))
    body_length = _read_framing(request, fields)
    upgrade = _read_upgrade(fields, body_length)
    return RequestHead(
        method=request.method,
        host=authority.host,
        wire=_render(request, authority, target),
        body_length=body_length,
        upgrade=upgrade,
    )


def _read_host(fields: dict[bytes, list[bytes]]) -> _Authority:
    hosts = fields.get(b"host", [])
    if len(hosts) != 1:
        # RFC 9112 §3.2 wants one in 1.1; without a name nothing can be judged, so 1.0 must have one too.
        raise MalformedRequestError("not exactly one Host")
    return _parse_authority(hosts[0])


def _parse_authority(value: bytes) -> _Authority:
    if len(value) > NAME_LENGTH_MAX + len(".:65535"):
        raise MalformedRequestError("Host is not a host name")
    return _parse_short_authority(value)


@lru_cache(maxsize=_HOSTS_CACHED)
def _parse_short_authority(value: bytes) -> _Authority:
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedRequestError("Host is not ASCII") from None
    match = _HOST.match(text)
    if match is None:
        raise MalformedRequestError("Host is empty" if not text else "Host is not a host name")
    host, port = match.group(1), match.group(2)
    if port is not None and int(port) > 65535:
        raise MalformedRequestError("Host has a port out of range")
    name = _parse_host(host)
    shown = host.lower() if name is None else name
    return _Authority(name, shown if port is None else f"{shown}:{port}")


def _parse_host(host: str) -> DomainName | None:
    if _is_address(host):
        return None
    try:
        return parse_domain_name(host)
    except InvalidValueError:
        raise MalformedRequestError("Host is not a host name") from None


def _is_address(host: str) -> bool:
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
        else:
            IPv4Address(host)
    except ValueError:
        return False
    return True


def _read_target(request: h11.Request, host: _Authority) -> tuple[_Authority, bytes]:
    """The authority and the target in origin form (RFC 9112 §3.2)."""
    target = request.target
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
        return host, target
    match = _ABSOLUTE.match(target.decode("ascii"))
    if match is None:
        raise MalformedRequestError("malformed request target")
    if _parse_authority(match.group(1).encode("ascii")) != host:
        raise MalformedRequestError("Host and request target differ")
    path = match.group(2)
    return host, (path if path.startswith("/") else "/" + path).encode("ascii")


def _read_framing(request: h11.Request, fields: dict[bytes, list[bytes]]) -> int | None:
    """The body's length, None for chunks. h11 already refuses codings other than ``chunked``."""
    lengths = fields.get(b"content-length", [])
    if b"transfer-encoding" in fields:
        if lengths:
            raise MalformedRequestError("Content-Length with Transfer-Encoding")
        if request.http_version != b"1.1":
            raise MalformedRequestError("Transfer-Encoding in HTTP/1.0")
        return None
    if not lengths:
        return 0
    if not _CONTENT_LENGTH.match(lengths[0]):
        raise MalformedRequestError("malformed Content-Length")
    return int(lengths[0])


def _read_upgrade(fields: dict[bytes, list[bytes]], body_length: int | None) -> Upgrade:
    options = _tokens(fields.get(b"connection", []))
    if options & {b"host", b"content-length", b"transfer-encoding"}:
        # A proxy further on would drop the very fields that were judged (RFC 9110 §7.6.1).
        raise MalformedRequestError("Connection names a field that frames the request")
    protocols = _tokens(fields.get(b"upgrade", []))
    if not protocols:
        return Upgrade.NONE
    if protocols != {b"websocket"}:
        raise MalformedRequestError("Upgrade to anything but websocket is not relayed")
    if body_length != 0:
        raise MalformedRequestError("Upgrade with a body")
    return Upgrade.WEBSOCKET


def _tokens(values: list[bytes]) -> set[bytes]:
    return {token for value in values for part in value.split(b",") if (token := part.strip().lower())}


def _render(request: h11.Request, authority: _Authority, target: bytes) -> bytes:
    lines = [b"%b %b HTTP/%b" % (request.method, target, request.http_version)]
    for name, value in request.headers.raw_items():
        written = authority.text.encode("ascii") if name.lower() == b"host" else value
        lines.append(b"%b: %b" % (name, written))
    lines.append(b"\r\n")
    return b"\r\n".join(lines)
