"""Where one request ends: smuggling, judged by what any server may read in the bytes that arrived."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.flights import Flight, send
from attack.readings import a_chunked_request, a_plain_request, requests_read
from attack.scene import Scene
from attack.world import TAPE, TENANT

SMUGGLED = f"GET / HTTP/1.1\r\nHost: {TENANT}\r\n\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked"


def _post(*fields: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """The head of a request to the allowed host with these fields."""
    return b"\r\n".join((b"POST / " + version, b"Host: " + TAPE.name.encode(), *fields, b"", b""))


def _length(count: int) -> bytes:
    return b"Content-Length: %d" % count


def _nothing_smuggled(scene: Scene, flights: list[Flight], port: int = 80) -> Iterator[str]:
    send(scene, flights, port)
    yield from requests_read(scene)


@case(Group.STRINGS, control=a_plain_request)
def a_length_and_chunks_together_hide_no_request(scene: Scene) -> Iterator[str]:
    """CL.TE and TE.CL: the judge goes by one of the two, the server by the other (James Kettle, 2019; RFC 9112 §6.3)."""
    ends_early = b"0\r\n\r\n" + SMUGGLED
    chunk = b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"
    yield from _nothing_smuggled(
        scene,
        [
            _post(_length(len(ends_early)), CHUNKED) + ends_early,
            _post(CHUNKED, _length(len(ends_early))) + ends_early,
            _post(_length(len(chunk.split(b"\r\n")[0]) + 2), CHUNKED) + chunk,
            _post(CHUNKED, _length(0)) + ends_early,
        ],
        port=8080,
    )


@case(Group.STRINGS, control=a_chunked_request)
def no_spelling_of_chunked_is_read_by_the_server_alone(scene: Scene) -> Iterator[str]:
    """Transfer-Encoding that one side does not recognise: the judge counts the length, the server the chunks."""
    spellings = (
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding: \x00chunked",
        b"Transfer-Encoding: chunked\x00",
        b'Transfer-Encoding: "chunked"',
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding\t: chunked",
        b" Transfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        b"Transfer-\x01Encoding: chunked",
        b"TRANSFER-ENCODING: ChUnKeD,",
    )
    body = b"0\r\n\r\n" + SMUGGLED
    yield from _nothing_smuggled(scene, [_post(_length(len(body)), spelling) + body for spelling in spellings])


@case(Group.STRINGS, control=a_chunked_request)
def chunks_are_no_matter_of_http_1_0(scene: Scene) -> Iterator[str]:
    """An older version with a newer header: RFC 9112 §6.1 calls the framing of such a message faulty."""
    body = b"0\r\n\r\n" + SMUGGLED
    versions = (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.01", b"http/1.1", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/01.1")
    flights = [_post(_length(len(body)), CHUNKED, version=version) + body for version in versions]
    yield from _nothing_smuggled(scene, [*flights, *(SMUGGLED.replace(b"HTTP/1.1", v) for v in versions[1:])])


@case(Group.STRINGS, control=a_plain_request)
def two_lengths_hide_no_request(scene: Scene) -> Iterator[str]:
    """The first length or the last: whoever takes the other one finds a request where the judge saw a body."""
    all_of_it, none = _length(len(SMUGGLED)), _length(0)
    pairs = (
        (all_of_it, none),
        (none, all_of_it),
        (b"Content-Length: %d, 0" % len(SMUGGLED),),
        (b"Content-Length: 0, %d" % len(SMUGGLED),),
        (all_of_it, b"X: y", b"content-length: 0"),
        (all_of_it, b"Content-Length : 0"),
        (none, b"Content_Length\x00: %d" % len(SMUGGLED), b"Content-Length\x0b: %d" % len(SMUGGLED)),
    )
    yield from _nothing_smuggled(scene, [_post(*pair) + SMUGGLED for pair in pairs])


@case(Group.STRINGS, control=a_plain_request)
def a_length_is_digits_and_nothing_else(scene: Scene) -> Iterator[str]:
    """What ``int()`` and ``strtol`` take beyond 1*DIGIT: signs, blanks, underscores, prefixes, overflow.

    Falcon took ``+`` and ``0x`` in lengths and in chunk sizes (CVE-2023-38697).
    """
    count = len(SMUGGLED)
    odd = (
        b"+%d" % count,
        b"-0",
        b"-%d" % count,
        b"0x%x" % count,
        b"%d " % (count + (1 << 64)),
        b"%d" % (count + (1 << 32)),
        b"1_0",
        b"%d;q=1" % count,
        b"%d.0" % count,
        b"0 %d" % count,
        b"\x0b%d" % count,
        b"",
        b'"%d"' % count,
    )
    flights: list[Flight] = [_post(b"Content-Length: " + value) + SMUGGLED for value in odd]
    send(scene, flights, 80)
    arrived = [c for c in scene.journal().connections if SMUGGLED in c.kept]
    for connection in arrived:
        if b"%d" % (count + (1 << 32)) not in connection.kept:
            yield f"{connection.kept!r} at {connection.address}"


@case(Group.STRINGS, control=a_chunked_request)
def a_chunk_size_is_digits_and_nothing_else(scene: Scene) -> Iterator[str]:
    """Chunk sizes with signs, prefixes, overflow or nothing at all: who reads zero where another does not ends the body."""
    sizes = (
        b"0x0",
        b"+0",
        b"-0",
        b"0\x00",
        b"0_0",
        b" 0",
        b"0g",
        b"0\x0b",
        b"1" + b"0" * 16,
        b"",
        b";",
        b"zz",
        b"0" * 30 + b"g",
    )
    flights: list[Flight] = [_post(CHUNKED) + size + b"\r\n\r\n" + SMUGGLED for size in sizes]
    flights += [_post(CHUNKED) + odd + SMUGGLED for odd in (b"0\n\n", b"0\r\r", b"0\r\n\n", b"0 \r\n \r\n\r\n")]
    yield from _nothing_smuggled(scene, flights)


@case(Group.STRINGS, control=a_chunked_request)
def what_is_written_around_chunks_hides_no_request(scene: Scene) -> Iterator[str]:
    """Chunk extensions with bare line ends, and data beyond a chunk's length.

    One side ends the line at LF, the other goes on to CRLF; one skips two bytes behind the data, whatever they are (h11,
    CVE-2025-43859), the other demands CRLF.
    """
    inside = b"0\r\n\r\n" + SMUGGLED
    after_extension = b"2;\nxx\r\n%x\r\n" % len(inside) + inside + b"\r\n0\r\n\r\n"
    yield from _nothing_smuggled(
        scene,
        [
            _post(CHUNKED) + after_extension,
            _post(CHUNKED) + b"2;a=\rb\r\nxx\r\n0;\n\r\n\r\n" + SMUGGLED,
            _post(CHUNKED) + b"1;x\r\nA0\r\n\r\n" + SMUGGLED,
            _post(CHUNKED) + b"1\r\nAXX0\r\n\r\n" + SMUGGLED,
            _post(CHUNKED) + b"3\r\nabc\n0\n\n" + SMUGGLED,
        ],
    )


@case(Group.STRINGS, control=a_chunked_request)
def trailers_change_nothing_that_was_judged(scene: Scene) -> Iterator[str]:
    """Fields behind the last chunk: a server that merges them into the head gets another Host or length (RFC 9110 §6.5.1)."""
    trailers = (b"Host: " + TENANT.encode(), _length(5), CHUNKED, b"Host:" + TENANT.encode() + b"\nX: y")
    flights: list[Flight] = [
        _post(CHUNKED, b"Trailer: Host") + b"2\r\nhi\r\n0\r\n" + trailer + b"\r\n\r\n" for trailer in trailers
    ]
    send(scene, flights, 80)
    for connection in scene.journal().connections:
        behind = connection.kept.partition(b"\r\n\r\n")[2]
        if b":" in behind:
            yield f"{connection.kept!r} at {connection.address}"


@case(Group.STRINGS, control=a_plain_request)
def a_body_that_waits_for_a_continue_hides_no_request(scene: Scene) -> Iterator[str]:
    """``Expect: 100-continue``: one side takes what follows for the body, the other for the next request.

    Odd expectations and a body that is sent although the final answer came desynchronise proxies (Kettle, "HTTP/1.1 must die",
    2025).
    """
    waits = b"Expect: 100-continue"
    yield from _nothing_smuggled(
        scene,
        [
            [_post(waits, _length(0)), SMUGGLED],
            [_post(b"Expect: y 100-continue", _length(0)), SMUGGLED],
            [_post(b"Expect:\n 100-continue", _length(4)), SMUGGLED],
            [_post(waits, _length(2)), b"hi" + SMUGGLED],
            [_post(waits, CHUNKED), b"0\r\n\r\n" + SMUGGLED],
        ],
    )


@case(Group.STRINGS, control=a_plain_request)
def a_field_that_is_named_in_connection_does_not_fall_away(scene: Scene) -> Iterator[str]:
    """``Connection: Host`` and its like: a proxy further on drops the very fields by which the request was judged."""
    options = (b"Host", b"close, content-length", b"Transfer-Encoding", b"HOST", b"host,keep-alive")
    flights: list[Flight] = [_post(b"Connection: " + option, _length(0)) for option in options]
    send(scene, flights, 80)
    yield from (f"{c.kept!r} at {c.address}" for c in scene.journal().connections if c.kept)
