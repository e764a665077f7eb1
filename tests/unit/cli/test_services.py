"""The far side's services, without sockets."""

import pytest

from outgate.cli.demo.control import ServiceKind
from outgate.cli.demo.journal import Connection
from outgate.cli.demo.services import BANNER, KEPT_BYTES_MAX, SERVICES


class FakeWire:
    def __init__(self) -> None:
        self.record = Connection(0, 0.0, "s", 1, "d", 2, "far.example.org", "http")
        self.sent = b""
        self.is_finished = False
        self.rate_bytes_s = 0.0

    def send(self, data: bytes) -> None:
        self.sent += data

    def finish(self) -> None:
        self.is_finished = True

    def stream(self, rate_bytes_s: float) -> None:
        self.rate_bytes_s = rate_bytes_s


def _talk(kind: ServiceKind, *pieces: bytes) -> FakeWire:
    wire = FakeWire()
    service = SERVICES[kind](wire)
    service.opened()
    for piece in pieces:
        service.received(piece)
    return wire


def _get(target: str, extra: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: a.example.org\r\n{extra}\r\n".encode()


def test_echo_sends_back_and_banner_speaks_first() -> None:
    assert _talk(ServiceKind.ECHO, b"a", b"b").sent == b"ab"
    assert _talk(ServiceKind.BANNER, b"a").sent == BANNER + b"a"
    assert _talk(ServiceKind.SINK, b"a").sent == b""
    assert _talk(ServiceKind.PUSH).rate_bytes_s > 0


def test_a_tape_keeps_every_byte_and_answers_each_empty_line_and_each_piece_of_tls() -> None:
    pieces = (b"GET / HTTP/1.1\r\nHost : a\r\n\r", b"\nX\n\n")
    wire = _talk(ServiceKind.TAPE, *pieces)
    assert wire.record.kept == b"".join(pieces)
    assert wire.sent.count(b"HTTP/1.1 200 OK") == 2
    assert not wire.is_finished
    assert _talk(ServiceKind.TAPE, b"\x16\x03\x01").sent[:1] == b"\x15"
    assert len(_talk(ServiceKind.TAPE, b"x" * (KEPT_BYTES_MAX + 1)).record.kept) == KEPT_BYTES_MAX


def test_requests_of_a_kept_connection_are_answered_and_journalled_one_by_one() -> None:
    wire = _talk(ServiceKind.HTTP, _get("/") + _get("/bytes/5"), _get("/nowhere"))
    assert wire.record.requests == [f"GET http://a.example.org{path}" for path in ("/", "/bytes/5", "/nowhere")]
    assert wire.sent.count(b"HTTP/1.1 200") == 2
    assert b"hello from far.example.org" in wire.sent
    assert b"01234" in wire.sent
    assert b"HTTP/1.1 404" in wire.sent
    assert not wire.is_finished


def test_a_body_is_echoed() -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
    assert _talk(ServiceKind.HTTP, request, b"bo", b"dy").sent.endswith(b"body")


def test_an_endless_answer_streams_at_the_rate_asked_for() -> None:
    assert _talk(ServiceKind.HTTP, _get("/endless?rate=1000")).rate_bytes_s == 1000


def test_a_websocket_echoes_frames_unmasked() -> None:
    # The key and its answer are those of RFC 6455 §1.3.
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    mask = b"\1\2\3\4"
    frame = b"\x81\x82" + mask + bytes(byte ^ mask[i] for i, byte in enumerate(b"hi"))
    wire = _talk(ServiceKind.HTTP, _get("/ws", upgrade), frame[:3], frame[3:])
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in wire.sent
    assert wire.sent.endswith(b"\x81\x02hi")


@pytest.mark.parametrize("junk", [b"\x16\x03\x01 junk\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_not_a_request_is_journalled_as_bad(junk: bytes) -> None:
    wire = _talk(ServiceKind.HTTP, junk)
    assert wire.record.requests[0].startswith("BAD ")
    assert wire.is_finished
