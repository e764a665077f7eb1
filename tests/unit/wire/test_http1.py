"""Requests are read one by one and written anew; bodies keep their length; cuts change nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.wire.http1 import BodyPart, RequestEvent, RequestReader, RequestRefused
from outgate.wire.http1_head import HEAD_BYTES_MAX, RequestHead, Upgrade

GET = b"GET /a?b HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\n\r\n"


def drain(reader: RequestReader) -> list[RequestEvent]:
    events: list[RequestEvent] = []
    while (event := reader.next()) is not None:
        events.append(event)
        if isinstance(event, RequestRefused):
            break
    return events


def read(data: bytes, cuts: list[int] | None = None) -> list[RequestEvent]:
    """All events of ``data``, fed in pieces."""
    reader, events, start = RequestReader(), [], 0
    for cut in [*sorted(set(cuts or [])), len(data)]:
        if cut > start:
            reader.feed(data[start:cut])
            events += drain(reader)
            start = cut
        if events and isinstance(events[-1], RequestRefused):
            break
    return events


def wire_of(events: list[RequestEvent]) -> bytes:
    """What goes upstream."""
    return b"".join(event.wire for event in events if not isinstance(event, RequestRefused))


def heads_of(events: list[RequestEvent]) -> list[RequestHead]:
    return [event for event in events if isinstance(event, RequestHead)]


def test_a_request_goes_out_as_it_came() -> None:
    (head,) = read(GET)
    assert head == RequestHead(b"GET", "a.test", GET, 0, Upgrade.NONE)  # type: ignore[arg-type] # in normal form


REWRITTEN = {
    "absolute form becomes origin form": (
        b"GET http://A.test/x?y=1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ),
    "absolute form without a path": (
        b"GET http://a.test?q HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET /?q HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ),
    "the host in normal form, its port kept": (
        b"GET / HTTP/1.1\r\nhost:  A.Test.:8080\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a.test:8080\r\n\r\n",
    ),
    "blanks around values go": (
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: \t b c  \r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: b c\r\n\r\n",
    ),
    "order and spelling of fields stay": (
        b"GET / HTTP/1.0\r\nX-b: 1\r\nHOST: a.test\r\nx-B: 2\r\n\r\n",
        b"GET / HTTP/1.0\r\nX-b: 1\r\nHOST: a.test\r\nx-B: 2\r\n\r\n",
    ),
    "OPTIONS of the server": (
        b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ),
    "chunks are cut anew, extensions and trailers go": (
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    "a counted body": (
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello",
    ),
}


@pytest.mark.parametrize(("sent", "written"), REWRITTEN.values(), ids=REWRITTEN.keys())
def test_written_anew(sent: bytes, written: bytes) -> None:
    assert wire_of(read(sent)) == written


@pytest.mark.parametrize("host", [b"192.0.2.1", b"192.0.2.1:80", b"[2001:db8::1]", b"[2001:db8::1]:80"])
def test_a_host_that_is_an_address_names_nobody(host: bytes) -> None:
    (head,) = heads_of(read(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"))
    assert head.host is None


def test_websocket_is_an_upgrade_that_may_be() -> None:
    request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    (head,) = heads_of(read(request))
    assert head.upgrade is Upgrade.WEBSOCKET
    assert head.wire == request


STREAM = (
    GET
    + b"POST /1 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\nGET / HTTP/"
    + b"POST /2 HTTP/1.1\r\nHost: b.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1f\r\n"
    + b"x" * 31
    + b"\r\n0\r\n\r\n"
    + b"HEAD /3 HTTP/1.1\r\nHost: c.test\r\n\r\n"
)


def _joined(events: list[RequestEvent]) -> list[tuple[RequestHead, bytes]]:
    """Requests with their bodies, chunk borders undone."""
    requests: list[tuple[RequestHead, bytes]] = []
    for event in events:
        match event:
            case RequestHead():
                requests.append((event, b""))
            case BodyPart(wire=wire):
                head, body = requests[-1]
                if head.body_length is None:
                    size, _, rest = wire.partition(b"\r\n")
                    wire = rest[: int(size, 16)]
                requests[-1] = (head, body + wire)
            case RequestRefused():
                raise AssertionError(event)
    return requests


@given(st.lists(st.integers(0, len(STREAM))))
def test_cuts_do_not_change_requests_or_bodies(cuts: list[int]) -> None:
    requests = _joined(read(STREAM, cuts))
    assert [(head.method, head.host, body) for head, body in requests] == [
        (b"GET", "a.test", b""),
        (b"POST", "a.test", b"GET / HTTP/"),
        (b"POST", "b.test", b"abc" + b"x" * 31),
        (b"HEAD", "c.test", b""),
    ]


@given(
    st.binary(max_size=300) | st.text(alphabet="GET HTP/1.\r\nost:ab0", max_size=200).map(str.encode),
    st.lists(st.integers(0, 300)),
)
def test_any_bytes_give_the_same_refusal_however_cut(data: bytes, cuts: list[int]) -> None:
    whole, pieces = read(data), read(data, cuts)
    assert [event for event in whole if not isinstance(event, BodyPart)] == [
        event for event in pieces if not isinstance(event, BodyPart)
    ]


@given(st.data())
def test_a_damaged_request_gives_the_same_heads_and_refusal_however_cut(data: st.DataObject) -> None:
    damaged = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.sampled_from(b"\r\n\x00 :,;0aA/\x7f\xff"))
    cuts = data.draw(st.lists(st.integers(0, len(damaged))))
    whole, pieces = read(bytes(damaged)), read(bytes(damaged), cuts)
    assert [event for event in whole if not isinstance(event, BodyPart)] == [
        event for event in pieces if not isinstance(event, BodyPart)
    ]


@given(st.data())
def test_what_goes_upstream_reads_back_as_what_was_judged(data: st.DataObject) -> None:
    damaged = bytearray(STREAM)
    for _ in range(data.draw(st.integers(0, 2))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    events = read(bytes(damaged))
    again = read(wire_of(events))
    assert [(head.method, head.host, head.body_length) for head in heads_of(again)] == [
        (head.method, head.host, head.body_length) for head in heads_of(events)
    ]


def test_a_counted_body_may_pass_unread() -> None:
    reader = RequestReader()
    reader.feed(b"PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nabc")
    assert isinstance(reader.next(), RequestHead)
    assert reader.passable == 0, "what was fed goes first"
    assert reader.next() == BodyPart(b"abc")
    assert reader.passable == 997
    reader.passed(900)
    assert (reader.passable, reader.is_between_requests) == (97, False)
    reader.passed(97)
    assert (reader.passable, reader.is_between_requests) == (0, True)
    reader.feed(GET)
    assert isinstance(reader.next(), RequestHead)


def test_a_head_may_be_as_long_as_the_limit_and_no_longer() -> None:
    room = HEAD_BYTES_MAX - len(b"GET / HTTP/1.1\r\nHost: a.test\r\nX: \r\n\r\n")
    fits = b"GET / HTTP/1.1\r\nHost: a.test\r\nX: " + b"x" * room + b"\r\n\r\n"
    assert len(heads_of(read(fits))) == 1
    assert read(fits.replace(b"X: ", b"X: y")) == [RequestRefused("request head too long", is_too_long=True)]


def test_a_head_without_an_end_is_refused_at_the_limit() -> None:
    reader = RequestReader()
    reader.feed(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 4000)
    assert reader.next() == RequestRefused("request head too long", is_too_long=True)


def test_a_bad_chunk_is_refused_inside_the_body() -> None:
    request = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    events = read(request + b"3\r\nabcX\r\n")
    assert events[-1] == RequestRefused("malformed chunked body", in_body=True)
