"""Requests through the front: who gets in, what the devbox sees, what the client gets back."""

import base64
import contextlib
import hashlib
import http.client
import json
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from outgate.model.tunnels import DialStatus, InsideHello, TunnelFeed, WakeState
from support.front_rig import (
    ACCOUNT,
    OPEN_KEY,
    OTHER_ACCOUNT,
    OTHERS_KEY,
    ROUTES,
    TOKEN,
    TOKEN_KEY,
    FrontRig,
    ask,
    name_of,
    seen,
)

OPEN, WITH_TOKEN, OTHERS = name_of(OPEN_KEY), name_of(TOKEN_KEY), name_of(OTHERS_KEY)


@pytest.fixture
def outside(rig: FrontRig) -> Iterator[socket.socket]:
    with rig.connect() as connection:
        yield connection


def inside_hello(name: str, *, account: str = ACCOUNT, is_tls: bool = False) -> InsideHello:
    return InsideHello("dbx_asking", account, name, is_tls)


def test_a_request_reaches_the_server_and_its_answer_comes_back_as_it_was(outside: socket.socket) -> None:
    response = ask(outside, OPEN, "/some%20path?q=%C3%A4&x=1")
    assert response.status == 200
    assert response.getheader("Set-Cookie") == "a=1, b=2"
    assert response.getheader("Content-Type") is None
    assert (response.getheader("Server") or "").startswith("BaseHTTP")
    assert json.loads(response.read())["path"] == "/some%20path?q=%C3%A4&x=1"
    again = ask(outside, OPEN, "/again")
    assert again.status == 200, "the client's connection stays open"
    again.read()


def test_what_belongs_to_the_hop_or_to_the_front_stays_behind(outside: socket.socket) -> None:
    headers = seen(
        ask(
            outside,
            "app.example.com",
            X_Runloop_Host=OPEN,
            X_Runloop_Tunnel_Authorization="Bearer whatever",
            Connection="keep-alive, X-Mine",
            X_Mine="1",
            Keep_Alive="timeout=5",
            Proxy_Authorization="Basic x",
            TE="trailers",
            Upgrade="h2c",
            X_Forwarded_Proto="gopher",
            X_Forwarded_For="192.0.2.1",
            Accept="*/*",
        )
    )
    assert headers == {
        "host": ["app.example.com"],
        "accept": ["*/*"],
        "connection": ["close"],
        "x-forwarded-for": ["192.0.2.1, 127.0.0.1"],
        "x-forwarded-proto": ["http"],
    }


def test_a_head_request_and_an_expectation(outside: socket.socket) -> None:
    response = ask(outside, OPEN, method="HEAD")
    assert (response.status, response.read()) == (200, b"")
    assert int(response.getheader("Content-Length") or 0) > 100
    posted = ask(outside, OPEN, method="POST", Content_Length="0", Expect="100-continue")
    assert json.loads(posted.read())["count"] == 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (name_of("a" * 24), 404),
        ("3000-.tunnel.runloop.test", 404),
        (f"0-{OPEN_KEY}.tunnel.runloop.test", 404),
        (f"65536-{OPEN_KEY}.tunnel.runloop.test", 404),
        (f"a.{OPEN}", 404),
        ("api.runloop.test", 404),
        ("[::1]", 404),
        (f"{OPEN.upper()}.:8443", 200),
    ],
)
def test_names_are_found_or_not(outside: socket.socket, host: str, status: int) -> None:
    response = ask(outside, host)
    assert response.status == status
    response.read()


def test_two_hosts_are_refused(outside: socket.socket) -> None:
    outside.sendall(f"GET / HTTP/1.1\r\nHost: {OPEN}\r\nHost: {OTHERS}\r\n\r\n".encode())
    response = http.client.HTTPResponse(outside)
    response.begin()
    assert response.status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"X_Runloop_Tunnel_Authorization": TOKEN},
        {"X_Runloop_Tunnel_Authorization": "Bearer "},
    ],
)
def test_an_authenticated_tunnel_wants_its_token(outside: socket.socket, headers: dict[str, str]) -> None:
    response = ask(outside, WITH_TOKEN, **headers)
    assert (response.status, response.getheader("WWW-Authenticate")) == (401, "Bearer")
    assert json.loads(response.read())["code"] == "unauthorized"


def test_the_token_opens_it_and_stays_behind(outside: socket.socket) -> None:
    by_own = seen(
        ask(outside, WITH_TOKEN, X_Runloop_Tunnel_Authorization=f"Bearer {TOKEN}", Authorization="Bearer app's own")
    )
    assert by_own["authorization"] == ["Bearer app's own"]
    by_plain = seen(ask(outside, WITH_TOKEN, Authorization=f"bearer {TOKEN}"))
    assert "authorization" not in by_plain
    assert "x-runloop-tunnel-authorization" not in by_own


def test_an_open_tunnel_passes_the_applications_own_authorization(outside: socket.socket) -> None:
    assert seen(ask(outside, OPEN, Authorization="Bearer app's own"))["authorization"] == ["Bearer app's own"]


@pytest.mark.parametrize(
    ("status", "state", "expected"),
    [
        (DialStatus.REFUSED, WakeState.STARTING, (503, "tunnel_service_not_ready", "1")),
        (DialStatus.BUSY, WakeState.STARTING, (503, "tunnel_unavailable", "1")),
        (DialStatus.NOT_RUNNING, WakeState.STARTING, (503, "tunnel_unavailable", "5")),
        (DialStatus.NOT_RUNNING, WakeState.ASLEEP, (503, "tunnel_unavailable", "60")),
        (DialStatus.NOT_RUNNING, WakeState.GONE, (404, "tunnel_not_found", None)),
    ],
)
def test_a_devbox_that_does_not_answer(
    rig: FrontRig,
    outside: socket.socket,
    status: DialStatus,
    state: WakeState,
    expected: tuple[int, str, str | None],
) -> None:
    rig.statuses["dbx_open"] = status
    rig.wake_state = state
    response = ask(outside, OPEN)
    code = json.loads(response.read())["code"]
    assert (response.status, code, response.getheader("Retry-After")) == expected
    assert rig.woken == ([OPEN_KEY] if status is DialStatus.NOT_RUNNING else [])


def test_a_server_that_breaks_off_or_speaks_no_http(rig: FrontRig) -> None:
    with rig.connect() as connection:
        response = ask(connection, OPEN, "/nonsense")
        assert (response.status, json.loads(response.read())["code"]) == (502, "tunnel_bad_answer")
    with rig.connect() as connection:
        half = ask(connection, OPEN, "/broken")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            half.read()


def test_events_come_as_they_are_sent(rig: FrontRig, outside: socket.socket) -> None:
    response = ask(outside, OPEN, "/events")
    assert response.getheader("Content-Type") == "text/event-stream"
    assert response.readline() == b"data: 0\n"
    with rig.connect() as other:  # the server sends no more before it hears of this
        assert ask(other, OPEN, "/more-events").status == 200
    assert response.read() == b"\ndata: 1\n\ndata: 2\n\n"


def test_large_bodies_pass_in_bounded_memory_whoever_is_slow(rig: FrontRig) -> None:
    size = 100 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with rig.connect() as connection:
        response = ask(connection, OPEN, f"/big/{size}")
        time.sleep(0.5)  # nobody reads yet: nothing may pile up
        taken = 0
        while piece := response.read(1 << 20):
            taken += len(piece)
        assert taken == size
        digest = hashlib.sha256()
        piece = bytes(range(256)) * 256
        head = f"POST /take HTTP/1.1\r\nHost: {OPEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(size // len(piece)):
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            digest.update(piece)
        connection.sendall(b"0\r\n\r\n")
        posted = http.client.HTTPResponse(connection, method="POST")
        posted.begin()
        assert json.loads(posted.read()) == {"count": size, "sha256": digest.hexdigest()}
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 32 * 1024, "bodies were kept"


def open_websocket(connection: socket.socket, host: str, **headers: str) -> http.client.HTTPResponse:
    key = base64.b64encode(b"0123456789abcdef").decode()
    return ask(
        connection,
        host,
        "/ws",
        Connection="keep-alive, Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key=key,
        **headers,
    )


def frame(data: bytes) -> bytes:
    mask = b"\x01\x02\x03\x04"
    length = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
    return b"\x82" + length + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "it closed"
        data += piece
    return data


def test_a_websocket_passes_both_ways_and_ends_with_either_side(outside: socket.socket) -> None:
    opened = open_websocket(outside, OPEN)
    assert opened.status == 101
    assert opened.getheader("Sec-WebSocket-Accept") == "BACScCJPNqyz+UBoqMH89VmURoA="
    for data in (b"one", b"x" * 60_000, b"three"):
        outside.sendall(frame(data))
        head = 2 if len(data) < 126 else 4
        assert read_exactly(outside, head + len(data))[head:] == data
    outside.sendall(b"\x88\x80\0\0\0\0")
    assert outside.recv(1) == b""


def test_a_websocket_needs_the_token_too(outside: socket.socket) -> None:
    assert open_websocket(outside, WITH_TOKEN).status == 401


def test_a_removed_tunnel_is_cut_and_unknown_from_then_on(rig: FrontRig, outside: socket.socket) -> None:
    assert open_websocket(outside, OPEN).status == 101
    with rig.connect() as other:
        assert open_websocket(other, OTHERS).status == 101
        rig.call(lambda: rig.table.apply(TunnelFeed(2, full=False, gone=(OPEN_KEY,))))
        outside.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert outside.recv(1) == b""
        other.sendall(frame(b"alive"))
        assert read_exactly(other, 7)[2:] == b"alive", "another tunnel's went with it"
    with rig.connect() as again:
        assert ask(again, OPEN).status == 404


def test_a_full_feed_cuts_what_it_does_not_name(rig: FrontRig, outside: socket.socket) -> None:
    assert open_websocket(outside, OPEN).status == 101
    rig.call(lambda: rig.table.apply(TunnelFeed(3, full=True, tunnels=ROUTES[1:])))
    outside.settimeout(20)
    with contextlib.suppress(ConnectionResetError):
        assert outside.recv(1) == b""


def test_use_is_noted_also_of_a_connection_that_lasts(rig: FrontRig, outside: socket.socket) -> None:
    assert open_websocket(outside, OPEN).status == 101
    rig.call(rig.activity._keys.clear)
    outside.sendall(frame(b"hello"))
    read_exactly(outside, 7)
    assert rig.call(lambda: set(rig.activity._keys)) == {OPEN_KEY}


def test_tls_serves_tunnels_by_http1_and_the_api_by_http2_as_well(rig: FrontRig) -> None:
    with rig.connect_tls(OPEN, ("h2", "http/1.1")) as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert seen(ask(connection, OPEN))["x-forwarded-proto"] == ["https"]
        api = ask(connection, "api.runloop.test")
        assert api.status == 404, "the API is found by the name in the handshake alone"
        api.read()
    with rig.connect_tls("api.runloop.test", ("h2", "http/1.1")) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        connection.sendall(b"PRI * HTTP/2.0")
        assert connection.recv(100) == b"api: PRI * HTTP/2.0"
    with rig.connect_tls("API.runloop.test") as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"


def test_the_local_authority_is_worth_nothing_elsewhere(rig: FrontRig) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        rig.connect_tls("tunnel.example.com")


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_devbox_comes_in_by_the_gate(rig: FrontRig, is_tls: bool) -> None:
    plain = rig.connect_inside(inside_hello(OPEN, is_tls=is_tls))
    connection = plain
    if is_tls:
        context = ssl.create_default_context(cafile=str(rig.authority))
        connection = context.wrap_socket(plain, server_hostname=OPEN)
    with connection:
        headers = seen(ask(connection, OPEN))
        assert headers["x-forwarded-proto"] == ["https" if is_tls else "http"]
        assert "x-forwarded-for" not in headers


def test_a_devbox_reaches_no_other_name_than_the_one_it_was_allowed(rig: FrontRig) -> None:
    for name in (OTHERS, WITH_TOKEN):
        with rig.connect_inside(inside_hello(OPEN)) as connection:
            assert ask(connection, OPEN, X_Runloop_Host=name).status == 421
    with rig.connect_inside(inside_hello(OPEN)) as connection:
        kept = seen(ask(connection, "app.example.com", X_Runloop_Host=OPEN))
        assert kept["host"] == ["app.example.com"]


def test_a_devbox_needs_the_token_like_anybody(rig: FrontRig) -> None:
    with rig.connect_inside(inside_hello(WITH_TOKEN)) as connection:
        refused = ask(connection, WITH_TOKEN)
        assert refused.status == 401
        refused.read()
        assert ask(connection, WITH_TOKEN, Authorization=f"Bearer {TOKEN}").status == 200


def test_a_tunnel_whose_key_says_another_account_than_the_api_does_is_closed(rig: FrontRig) -> None:
    odd = ROUTES[0].__class__(OPEN_KEY, "dbx_open", OTHER_ACCOUNT)
    rig.call(lambda: rig.table.apply(TunnelFeed(2, full=False, tunnels=(odd,))))
    with rig.connect_inside(inside_hello(OPEN)) as connection:
        assert ask(connection, OPEN).status == 403


def test_what_is_no_hello_is_dropped(rig: FrontRig) -> None:
    for said in (b"\xff\xff", b"\x00\x05hello", b"\x00\x02{}"):
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(20)
        with connected:
            connected.connect(str(rig.inside))
            connected.sendall(said)
            assert connected.recv(1) == b""


def test_a_client_that_leaves_takes_its_request_along(rig: FrontRig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rig.ports["dbx_open", 3000] = silent.getsockname()[1]
        with rig.connect() as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n".encode())
            upstream, _ = silent.accept()
            upstream.settimeout(20)
            assert upstream.recv(1000).startswith(b"GET / HTTP/1.1")
        with contextlib.suppress(ConnectionResetError):
            assert upstream.recv(1) == b""
        upstream.close()


def test_a_body_that_breaks_off_is_not_passed_as_a_whole_one(rig: FrontRig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rig.ports["dbx_open", 3000] = silent.getsockname()[1]
        with rig.connect() as connection:
            silent.settimeout(20)
            connection.sendall(
                f"POST / HTTP/1.1\r\nHost: {OPEN}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode()
            )
            upstream, _ = silent.accept()
            upstream.settimeout(20)
            said = b""
            while b"abc" not in said:
                said += upstream.recv(1000)
            connection.sendall(b"zz\r\n")
        try:
            while piece := upstream.recv(1000):
                said += piece
        except ConnectionResetError:
            pass
        assert not said.endswith(b"0\r\n\r\n")
        upstream.close()


def test_terminals_go_to_the_api_with_their_token(rig: FrontRig) -> None:
    key = "b" * 24
    path = rig.directory / "pty.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    heads: list[bytes] = []

    def serve() -> None:
        accepted, _ = listening.accept()
        with accepted:
            heads.append(accepted.recv(4096))
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    serving = threading.Thread(target=serve)
    serving.start()
    with listening, rig.connect() as connection:
        headers = {"X_Runloop_Tunnel_Authorization": "Bearer t"}
        assert ask(connection, name_of(key), "/pty/main", **headers).read() == b"ok"
        serving.join(5)
        assert b"X-Runloop-Tunnel-Authorization: Bearer t" in heads[0]
        assert f"Host: {name_of(key)}".encode() in heads[0]
    path.unlink()
