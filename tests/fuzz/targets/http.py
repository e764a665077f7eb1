"""Requests of devboxes, written anew; and where the responses to them end."""

import http.client
import io
from dataclasses import dataclass

import h11

from fuzz.cuts import ways_to_cut
from outgate.model.names import parse_domain_name
from outgate.wire.http1 import BodyPart, RequestReader, RequestRefused
from outgate.wire.http1_head import HEAD_BYTES_MAX, RequestHead
from outgate.wire.http1_response import ResponsesState, ResponseTracker


@dataclass(frozen=True)
class Judged:
    """The requests of one connection as they were judged: each head with its body's bytes as they go upstream."""

    requests: tuple[tuple[RequestHead, bytes], ...]
    refusal: RequestRefused | None

    @property
    def wire(self) -> bytes:
        """All that goes upstream."""
        return b"".join(head.wire + body for head, body in self.requests)


def read_requests(data: bytes) -> None:
    whole = judge((data,))
    plain = [(head, _content(head, body)) for head, body in whole.requests]
    for pieces in ways_to_cut(data):
        other = judge(pieces)
        assert [(head, _content(head, body)) for head, body in other.requests] == plain
        assert other.refusal == whole.refusal
    check_upstream_reads(whole)
    for head, _ in whole.requests:
        assert len(head.wire) <= HEAD_BYTES_MAX + 300
        if head.host is not None:
            assert parse_domain_name(head.host) == head.host


def judge(pieces: tuple[bytes, ...]) -> Judged:
    reader = RequestReader()
    requests: list[tuple[RequestHead, bytes]] = []
    for piece in pieces:
        rest = piece
        while rest:
            skipped, rest = rest[: reader.passable], rest[reader.passable :]
            if skipped:
                head, body = requests[-1]
                requests[-1] = (head, body + skipped)
                reader.passed(len(skipped))
                continue
            reader.feed(rest)
            rest = b""
            while (event := reader.next()) is not None:
                if isinstance(event, RequestRefused):
                    return Judged(tuple(requests), event)
                if isinstance(event, BodyPart):
                    head, body = requests[-1]
                    requests[-1] = (head, body + event.wire)
                else:
                    requests.append((event, b""))
            assert len(reader.rest) <= HEAD_BYTES_MAX + len(piece)
    return Judged(tuple(requests), None)


def _content(head: RequestHead, body: bytes) -> tuple[bytes, bool]:
    """The body without its framing, and whether it is whole."""
    if head.body_length is not None:
        return body, len(body) == head.body_length
    content, source = b"", io.BytesIO(body)
    while line := source.readline():
        size = int(line, 16)
        if size == 0:
            return content, True
        content += source.read(size)
        assert source.read(2) == b"\r\n"
    return content, False


def check_upstream_reads(judged: Judged) -> None:
    """Two readers of what goes upstream find the requests that were judged, and no others."""
    rest = judged.wire
    for head, body in judged.requests:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX * 2)
        connection.receive_data(rest)
        request = connection.next_event()
        assert isinstance(request, h11.Request), "what goes upstream is no request"
        hosts = [value for name, value in request.headers if name == b"host"]
        assert request.method == head.method
        assert hosts == [_header(head.wire, "host")]
        named = hosts[0].decode("ascii").lower()
        if head.host is not None:
            assert named.partition(":")[0] == head.host, "upstream is asked for another host"
        content = b""
        while isinstance(event := connection.next_event(), h11.Data):
            content += event.data
        expected, is_whole = _content(head, body)
        assert content == expected
        assert isinstance(event, h11.EndOfMessage) is is_whole
        rest = connection.trailing_data[0] if is_whole else b""
    assert rest == b"", "more goes upstream than was judged"


def _header(wire: bytes, name: str) -> bytes:
    """What the standard library, which is lenient, takes the header for."""
    source = io.BytesIO(wire)
    assert len(source.readline().split()) == 3
    values = http.client.parse_headers(source).get_all(name) or []
    assert source.read() == b""
    assert len(values) == 1
    return str(values[0]).encode("latin-1")


def follow_responses(data: bytes) -> None:
    """The first byte says which requests were made; the rest is the server's."""
    methods = [(b"GET", False), (b"HEAD", False), (b"GET", True)]
    asked = [methods[data[0] >> shift & 3] for shift in (0, 2, 4) if data[0] >> shift & 3 < 3] if data else []
    answer = data[1:]
    whole = _follow(asked, (answer,))
    for pieces in ways_to_cut(answer):
        assert _follow(asked, pieces) == whole
    if len(asked) == 1 and not asked[0][1]:
        _compare_with_h11(asked[0][0], answer, whole)


def _follow(asked: list[tuple[bytes, bool]], pieces: tuple[bytes, ...]) -> tuple[ResponsesState, int]:
    tracker = ResponseTracker()
    for method, may_upgrade in asked:
        tracker.expect(method, may_upgrade=may_upgrade)
    for piece in pieces:
        rest = piece
        passed = min(tracker.passable, len(rest))
        if passed:
            tracker.passed(passed)
            rest = rest[passed:]
        if rest:
            tracker.feed(rest)
        assert tracker.pending <= len(asked)
    return tracker.state, tracker.pending


def _compare_with_h11(method: bytes, answer: bytes, followed: tuple[ResponsesState, int]) -> None:
    """A refusal is written behind a complete response: never behind one that a client takes to go on."""
    if followed[0] is not ResponsesState.COMPLETE:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a.example")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    try:
        while isinstance(event := client.next_event(), h11.Response | h11.InformationalResponse | h11.Data):
            pass
    except h11.RemoteProtocolError:
        return
    assert event is not h11.NEED_DATA, "a client waits for the rest of this response"
