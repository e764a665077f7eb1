"""What a client's first bytes are: TLS, HTTP/1, neither, or not yet known.

"Neither" may pass by address alone on most ports, so it must be certain: bytes that any server could
take for TLS or HTTP are called by that name even when the strict parsers will refuse them. So are an
SSLv2 hello, TLS records that precede a hello, HTTP after empty lines or in lower case, the preface of
HTTP/2, and the PROXY protocol, behind which a server would look for another host's name.

A client that sends half a text line and falls silent stays unknown, and is denied when its time is up:
it could go on with an HTTP request later.
"""

import re
from enum import Enum, auto
from typing import Final

FIRST_BYTES_MAX: Final = 18 * 1024
"""Longest hello, request head or first line that is waited for: twice what the big post-quantum hellos
take, and the limit that HTTP servers commonly set for a head."""


class FirstBytes(Enum):
    """What the bytes so far are."""

    UNKNOWN = auto()
    TLS = auto()
    HTTP = auto()
    OPAQUE = auto()


_TLS_RECORD_TYPES: Final = frozenset(range(20, 25))
"""change_cipher_spec to heartbeat: some servers skip a warning alert that comes before the hello."""
_BLANK: Final = b"\r\n\t "
_PROXY_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_METHOD_START: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
"""A method is a token (RFC 9110 §9.1), and servers hand unknown ones on to programs."""
_ODD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Control characters, which no HTTP server takes inside a request line (nor do lines of text hold them)."""


def classify_first_bytes(data: bytes, *, is_all: bool = False) -> FirstBytes:
    """What ``data``, the start of a client's stream, is. Once known, more bytes never change the answer.

    ``is_all`` says that the client will send nothing more (it closed its side), so that an unfinished
    line is the whole of it.
    """
    if not data:
        return FirstBytes.OPAQUE if is_all else FirstBytes.UNKNOWN
    first = data[0]
    if first in _TLS_RECORD_TYPES:
        kind = _classify_record(data)
    elif first & 0x80:
        kind = _classify_sslv2(data)
    else:
        kind = _classify_text(data, is_all=is_all)
    if kind is FirstBytes.UNKNOWN and is_all:
        return FirstBytes.OPAQUE
    return kind


def _classify_record(data: bytes) -> FirstBytes:
    if data[0] == 22:
        return FirstBytes.TLS
    if len(data) < 2:
        return FirstBytes.UNKNOWN
    return FirstBytes.TLS if data[1] == 3 else FirstBytes.OPAQUE


def _classify_sslv2(data: bytes) -> FirstBytes:
    """A two-byte length with the top bit set, CLIENT-HELLO (1), and version 3.x or 0.2 (RFC 5246 §E.2)."""
    if len(data) >= 3 and data[2] != 1:
        return FirstBytes.OPAQUE
    if len(data) >= 4 and data[3] not in (0, 3):
        return FirstBytes.OPAQUE
    if len(data) < 5:
        return FirstBytes.UNKNOWN
    return FirstBytes.TLS if data[3] == 3 or data[4] == 2 else FirstBytes.OPAQUE


def _classify_text(data: bytes, *, is_all: bool) -> FirstBytes:
    if data[0] == _PROXY_V2[0] and _PROXY_V2.startswith(data[: len(_PROXY_V2)]):
        return FirstBytes.HTTP if len(data) >= len(_PROXY_V2) else FirstBytes.UNKNOWN
    text = data.lstrip(_BLANK)
    if not text:
        return FirstBytes.UNKNOWN
    method = _METHOD_START.match(text)
    if method is None or (method.end() < len(text) and text[method.end()] not in _BLANK):
        return FirstBytes.OPAQUE
    line, newline, _ = text.partition(b"\n")
    odd = _ODD.search(line)
    if odd is not None:
        line = line[: odd.start()]
    if _is_http_line(line):
        return FirstBytes.HTTP
    return FirstBytes.OPAQUE if newline or odd is not None or is_all else FirstBytes.UNKNOWN


def _is_http_line(line: bytes) -> bool:
    # "GET x" without a version is HTTP/0.9, which knew no other method.
    return b"HTTP/" in line.upper() or line.startswith((b"GET ", b"GET\t", b"PROXY "))
