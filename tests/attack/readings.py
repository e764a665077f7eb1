"""What requests a server may read in the bytes it got, for servers of every temper.

Smuggling lives on two parsers that disagree (RFC 9112 §11.2). So the bytes which reached the far side are read by
parsers that differ in each point in which servers are known to differ. Bytes that are well-formed read the same in all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from attack.flights import CONTROL_S_MAX, send
from attack.scene import Scene
from attack.world import TAPE, TENANT

_REQUEST = re.compile(rb"[^\s:]+[ \t\x0b\x0c]+(\S+)(?:[ \t\x0b\x0c]+HTTP/\S*\s*)?\Z", re.IGNORECASE)
_AUTHORITY = re.compile(rb"(?:[a-z]+:)?//(?:[^/?#]*@)?([^/?#]*)|([^/?#:]+):[0-9]+\Z", re.IGNORECASE)
_SIZE = re.compile(rb"\s*[-+]?(?:0x)?([0-9a-f]+)", re.IGNORECASE)
_SIZE_OVERFLOW = 1 << 64
"""Parsers in C count in 64 bits."""
_NUMBER = re.compile(rb"[+\s]*([0-9]+)")


class Framing(Enum):
    """What decides where a request ends."""

    FIRST_LENGTH = auto()
    LAST_LENGTH = auto()
    CHUNKS = auto()
    """Whatever speaks of ``chunked``; a length otherwise."""


@dataclass(frozen=True, slots=True)
class Temper:
    """One kind of parser."""

    line_end: re.Pattern[bytes]
    framing: Framing


LINE_ENDS = tuple(re.compile(end) for end in (rb"\r\n", rb"\r?\n", rb"\r\n|\r|\n", rb"\r\n|\n|\x00"))
TEMPERS = tuple(Temper(line_end, framing) for line_end in LINE_ENDS for framing in Framing)


def hosts_read(data: bytes, temper: Temper) -> Iterator[bytes]:
    """Every host that a request in ``data`` names to a parser of this temper, in lower case and without port."""
    while data:
        lines, rest = _take_head(data, temper.line_end)
        if not lines:
            return
        request = _REQUEST.match(lines[0])
        if request is None:
            return
        fields = [_field(line) for line in lines[1:]]
        authority = _AUTHORITY.match(request.group(1))
        if authority is not None:
            yield _bare(authority.group(1) or authority.group(2) or b"")
        yield from (_bare(value) for name, value in fields if name == b"host")
        data = rest[_body_bytes(rest, fields, temper) :]


def _take_head(data: bytes, line_end: re.Pattern[bytes]) -> tuple[list[bytes], bytes]:
    """The lines up to the first empty one, and what follows it. Empty lines before them are skipped."""
    lines: list[bytes] = []
    while end := line_end.search(data):
        line, data = data[: end.start()], data[end.end() :]
        if line:
            lines.append(line)
        elif lines:
            break
    return lines, data


def _field(line: bytes) -> tuple[bytes, bytes]:
    """A header line as the most forgiving parser reads it: whatever is odd about the name is overlooked."""
    name, _, value = line.partition(b":")
    return re.sub(rb"[^a-z0-9-]", b"", name.lower()), value.strip()


def _bare(host: bytes) -> bytes:
    host = host.rpartition(b"@")[2].strip().lower()
    return re.sub(rb":[0-9]*\Z", b"", host).rstrip(b".")


def _body_bytes(rest: bytes, fields: list[tuple[bytes, bytes]], temper: Temper) -> int:
    if temper.framing is Framing.CHUNKS and any(
        b"chunked" in v.lower() for n, v in fields if n == b"transfer-encoding"
    ):
        return _chunked_bytes(rest, temper.line_end)
    lengths = [int(match.group(1)) for n, v in fields if n == b"content-length" and (match := _NUMBER.match(v))]
    if not lengths:
        return 0
    return lengths[-1 if temper.framing is Framing.LAST_LENGTH else 0]


def _chunked_bytes(rest: bytes, line_end: re.Pattern[bytes]) -> int:
    """Where the chunks end. Sizes are read as far as they can be, extensions and trailers skipped."""
    position = 0
    while end := line_end.search(rest, position):
        size = _SIZE.match(rest, position, end.start())
        position = end.end()
        count = 0 if size is None else int(size.group(1), 16) % _SIZE_OVERFLOW
        if not count:
            break
        position += count
        after = line_end.match(rest, position)
        position = after.end() if after else position
    while end := line_end.search(rest, position):
        is_last, position = end.start() == position, end.end()
        if is_last:
            break
    return position


def requests_read(scene: Scene, name: str = TENANT) -> Iterator[str]:
    """Requests naming ``name`` in what reached :data:`~attack.world.TAPE`, by the reading of any server."""
    for connection in scene.journal().connections:
        if any(name.encode() in hosts_read(connection.kept, temper) for temper in TEMPERS):
            yield f"{connection.kept!r} at {connection.address} port {connection.port} names {name}"


def a_plain_request(scene: Scene) -> bool:
    """The twin of whatever is odd about a head: two requests on one connection, the second with a body."""
    first = f"GET / HTTP/1.1\r\nHost: {TAPE.name}\r\n\r\n"
    second = first.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\nbody")
    return _reads_alike(scene, [first.encode(), second.encode()])


def a_chunked_request(scene: Scene) -> bool:
    """The twin of whatever is odd about a body: one in chunks, then a plain request."""
    first = f"GET / HTTP/1.1\r\nHost: {TAPE.name}\r\n\r\n"
    chunked = first.replace("GET", "POST").replace(
        "\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    )
    return _reads_alike(scene, [chunked.encode(), first.encode()])


def _reads_alike(scene: Scene, requests: list[bytes]) -> bool:
    """Whether ``requests`` arrive at both addresses, and mean the same to every parser that knows chunks.

    On one connection or on several: proxies may choose.
    """
    send(scene, [requests], 80, is_answered=True, wait_s=CONTROL_S_MAX)
    arrived = {TAPE.address4: b"", TAPE.address6: b""}
    for connection in scene.journal().connections:
        arrived[connection.address] = arrived.get(connection.address, b"") + connection.kept
    wanted = [TAPE.name.encode()] * len(requests)
    return all(
        list(hosts_read(kept, temper)) == wanted
        for kept in arrived.values()
        for temper in TEMPERS
        if temper.framing is Framing.CHUNKS
    )
