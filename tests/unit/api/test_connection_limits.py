"""What one client can do to the server by connections and frames: real sockets, and a second client that is served."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from outgate.api import connection_guard, listener
from outgate.control import pace
from outgate.control.configuration import ApiSettings
from outgate.model.desired import ObservedDevbox
from support.api_server import ApiServer

WAIT_S = 30.0
QUIET_S = 0.5
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
ENHANCE_YOUR_CALM = 11
BYTES_MAX = 64 * 1024 * 1024
"""Far more than the kernel's buffers hold: who may send it was read without a bound."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(connection_guard, "QUIET_S_MAX", QUIET_S)
    monkeypatch.setattr(connection_guard, "LOOK_EVERY_S", 0.1)
    with ApiServer(tmp_path, ApiSettings()) as running:
        yield running


@contextlib.contextmanager
def connect(server: ApiServer, said: bytes = b"", source: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S, source_address=(source, 0)) as connection:
        connection.sendall(said)
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """What comes until the server closes; fails when it does not."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            data += piece
    return data


def check_served(server: ApiServer) -> None:
    assert httpx.get(f"{server.base_url}/healthz", timeout=WAIT_S).status_code == 200


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 §4.1."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A field that no table remembers (RFC 7541 §6.2.2)."""
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


GET_HEALTH = b"\x82\x86" + literal(b":path", b"/healthz") + literal(b":authority", b"x")
OPENING = PREFACE + frame(SETTINGS, 0, 0)


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The kind, stream and payload of each whole frame."""
    at = 0
    while at + 9 <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        yield data[at + 3], int.from_bytes(data[at + 5 : at + 9], "big"), data[at + 9 : at + 9 + length]
        at += 9 + length


def goodbye(data: bytes) -> list[int]:
    """The error codes of the GOAWAYs."""
    return [int.from_bytes(payload[4:8], "big") for kind, _, payload in frames(data) if kind == GOAWAY]


@pytest.mark.parametrize(
    "said",
    [b"", b"PRI * HT", b"GET /healthz HTTP/1.1\r\nhost: x\r\n", OPENING, PREFACE, OPENING + frame(HEADERS, 0, 1)],
    ids=[
        "nothing",
        "half a preface",
        "half a head",
        "HTTP/2 without a request",
        "no settings",
        "half a head of HTTP/2",
    ],
)
def test_a_connection_without_a_request_is_closed(server: ApiServer, said: bytes) -> None:
    with connect(server, said) as connection:
        read_to_end(connection)
    check_served(server)


def test_a_connection_that_lies_idle_after_a_request_is_closed(server: ApiServer) -> None:
    with connect(server, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") as connection:
        assert read_to_end(connection).startswith(b"HTTP/1.1 200 OK")


def test_a_head_of_one_byte_at_a_time_is_closed(server: ApiServer) -> None:
    with connect(server, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: ") as connection:
        closed = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not closed.is_set():
                    connection.sendall(b"a")
                    time.sleep(0.02)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            read_to_end(connection)
        finally:
            closed.set()
            dripping.join()


def test_pings_do_not_keep_an_http2_connection_open_for_ever(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_guard, "SENDING_S_MAX", 2 * QUIET_S)
    with connect(server, OPENING) as connection:
        connection.settimeout(0.05)
        deadline = time.monotonic() + WAIT_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.sendall(frame(PING, 0, 0, b"12345678"))
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(65536):
                        break
        assert time.monotonic() < deadline


def test_a_long_poll_outlives_the_time_that_silent_connections_have(server: ApiServer) -> None:
    def never(document: object) -> ObservedDevbox | None:
        del document
        return None

    server.agent.observe = never
    with server.client(server.new_account("own").api_key) as client:
        made = client.post("/v1/devboxes", json={}).json()
        asked = {"statuses": ["running"], "timeout_seconds": 6 * QUIET_S}
        answer = client.post(f"/v1/devboxes/{made['id']}/wait_for_status", json=asked)
    assert answer.status_code == 408
    assert answer.json()["code"] == "wait_timeout"


def test_one_client_cannot_take_all_places(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_guard, "QUIET_S_MAX", 600.0)
    monkeypatch.setattr(connection_guard, "PER_CLIENT_MAX", 10)
    with contextlib.ExitStack() as opened:
        kept = opened.enter_context(connect(server, source="127.0.0.21"))
        many = [opened.enter_context(connect(server, source="127.0.0.22")) for _ in range(30)]
        ended: set[socket.socket] = set()
        while len(ended) < 20:
            readable, _, _ = select.select([one for one in many if one not in ended], [], [], WAIT_S)
            assert readable
            assert all(one.recv(1) == b"" for one in readable)
            ended.update(readable)
        for connection in (kept, *(one for one in many if one not in ended)):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_silent_connections_go_sooner_when_places_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses they come from."""
    monkeypatch.setattr(listener, "REQUESTS_MAX", 8)
    monkeypatch.setattr(connection_guard, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(connection_guard, "CROWDED_QUIET_S_MAX", QUIET_S)
    with ApiServer(tmp_path) as server, contextlib.ExitStack() as opened:
        for number in range(16):
            opened.enter_context(connect(server, source=f"127.0.0.{30 + number}"))
        check_served(server)


@pytest.mark.parametrize(
    "head",
    [
        b"x: " + b"a" * 100_000 + b"\r\n",
        b"".join(b"x-%d: y\r\n" % number for number in range(400)),
        b"cookie: " + b"a=b; " * 20_000 + b"\r\n",
    ],
    ids=["one long field", "many fields", "a long cookie"],
)
def test_a_head_that_is_too_long_is_refused_and_the_connection_closed(server: ApiServer, head: bytes) -> None:
    with connect(server, b"GET /healthz HTTP/1.1\r\nhost: x\r\n") as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head + b"\r\n")
        answer = read_to_end(connection)
    # A reset may destroy the answer on its way.
    assert not answer or answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 414 "))
    check_served(server)


def test_a_long_but_honest_head_is_taken(server: ApiServer) -> None:
    headers = {f"x-{number}": "y" * 400 for number in range(40)}
    assert httpx.get(f"{server.base_url}/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/v1/network-policies", "/v1/devboxes/dbx_0123456789abcdefghijk/write_file_contents"])
def test_a_body_that_stalls_is_given_up(server: ApiServer, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "STALL_S_MAX", QUIET_S)
    key = server.new_account("own").api_key
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 100\r\n\r\n{{"
    with connect(server, head.encode()) as connection:
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"transfer_stalled"' in answer


def test_a_body_of_one_byte_at_a_time_is_given_up(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes soon after the one before: what ends it is how slow they are all together."""
    monkeypatch.setattr(pace, "STALL_S_MAX", 2 * QUIET_S)
    key = server.new_account("own").api_key
    head = (
        f"POST /v1/network-policies HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: 99999\r\n\r\n"
    )
    with connect(server, head.encode()) as connection:
        connection.settimeout(0.05)
        answer, deadline = b"", time.monotonic() + WAIT_S
        while b"\r\n\r\n" not in answer:
            assert time.monotonic() < deadline
            with contextlib.suppress(ConnectionError):
                connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")


def flood(connection: socket.socket, said: Callable[[int], bytes]) -> tuple[int, bytes]:
    """Send until the server closes, stops reading, or took BYTES_MAX; how much it took, and what it said."""
    connection.settimeout(5.0)
    sent, number = 0, 0
    try:
        while sent < BYTES_MAX:
            piece = said(number)
            connection.sendall(piece)
            sent, number = sent + len(piece), number + 1
    except (ConnectionError, TimeoutError):
        pass
    answer = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            answer += piece
    return sent, answer


def test_streams_that_are_reset_at_once_end_the_connection(server: ApiServer) -> None:
    """Rapid reset, CVE-2023-44487."""

    def open_and_reset(number: int) -> bytes:
        stream = 2 * number + 1
        return frame(HEADERS, END_STREAM | END_HEADERS, stream, GET_HEALTH) + frame(
            RST_STREAM, 0, stream, b"\0\0\0\x08"
        )

    with connect(server, OPENING) as connection:
        sent, answer = flood(connection, open_and_reset)
    assert sent < BYTES_MAX
    assert goodbye(answer) in ([ENHANCE_YOUR_CALM], []), "or the reset that follows destroyed it"
    check_served(server)


@pytest.mark.parametrize("piece", [literal(b"a" * 100, b"b" * 100) * 80, b""], ids=["full", "empty"])
def test_a_head_without_an_end_ends_the_connection(server: ApiServer, piece: bytes) -> None:
    """CONTINUATION flood, CVE-2024-27316."""
    with connect(server, OPENING + frame(HEADERS, END_STREAM, 1, GET_HEALTH)) as connection:
        sent, _ = flood(connection, lambda _: frame(CONTINUATION, 0, 1, piece) * 10)
    assert sent < BYTES_MAX
    check_served(server)


@pytest.mark.parametrize(
    "piece",
    [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, b"\0\3\0\0\1\0"), frame(SETTINGS, 0, 0)],
    ids=["pings", "settings", "empty settings"],
)
def test_whoever_asks_and_does_not_read_is_not_read_from(server: ApiServer, piece: bytes) -> None:
    """CVE-2019-9512, CVE-2019-9515: answers that nobody takes would be kept in memory."""
    with connect(server, OPENING) as connection:
        sent, _ = flood(connection, lambda _: piece * 1000)
    assert sent < BYTES_MAX
    check_served(server)


def test_empty_pieces_of_a_body_end_the_connection(server: ApiServer) -> None:
    """CVE-2019-9518."""
    post = b"\x83\x86" + literal(b":path", b"/healthz") + literal(b":authority", b"x")
    with connect(server, OPENING + frame(HEADERS, END_HEADERS, 1, post)) as connection:
        sent, _ = flood(connection, lambda _: frame(DATA, 0, 1) * 100)
    assert sent < BYTES_MAX
    check_served(server)


def test_streams_of_one_connection_are_bounded_and_the_client_is_told(server: ApiServer) -> None:
    with connect(server, OPENING) as connection:
        said = b""
        while not any(kind == SETTINGS for kind, _, _ in frames(said)):
            said += connection.recv(65536)
    settings = next(payload for kind, _, payload in frames(said) if kind == SETTINGS)
    pairs = {
        int.from_bytes(settings[at : at + 2], "big"): int.from_bytes(settings[at + 2 : at + 6], "big")
        for at in range(0, len(settings), 6)
    }
    assert pairs[3] == listener.STREAMS_MAX
    assert pairs[6] == listener.HEAD_BYTES_MAX
