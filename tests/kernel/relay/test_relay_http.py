"""HTTP/1 through the relay: each request judged, written anew, answered in order."""

import socket
from collections.abc import Iterator

import pytest

from kernel.relay.rig import (
    OTHER4,
    Net,
    Router,
    accept,
    assert_nobody_came,
    is_reset,
    is_silent,
    receive_all,
    receive_exactly,
    receive_until,
    sending,
)

pytestmark = pytest.mark.kernel

GET_A = b"GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n"
GET_B = b"GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n"
GET_EVIL = b"GET /3 HTTP/1.1\r\nHost: evil.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def server(net: Net) -> Iterator[socket.socket]:
    with net.listen(80) as listener:
        yield listener


def test_a_denied_request_gets_a_page_that_says_why(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(80) as client:
        client.sendall(GET_EVIL)
        head, _, body = receive_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"\r\nconnection: close" in head
    for part in (b"policy: test npol_1", b"host:   evil.test", b"reason: name_not_allowed"):
        assert part in body
    assert_nobody_came(server)


def test_a_malformed_request_gets_a_400_and_nothing_passes(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(80) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: evil.test\r\n\r\n")
        assert receive_all(client).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert_nobody_came(server)


@pytest.mark.parametrize(
    "first", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", b"GET /\r\n"]
)
def test_what_is_not_http1_is_refused(net: Net, router: Router, server: socket.socket, first: bytes) -> None:
    with net.connect(80) as client:
        client.sendall(first)
        assert receive_all(client).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert_nobody_came(server)


def test_a_page_is_not_destroyed_by_a_body_that_is_still_coming(net: Net, router: Router) -> None:
    with net.connect(80) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000))
        assert b"reason: name_not_allowed" in receive_all(client)


def test_keep_alive_with_a_denied_second_request(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(80) as client:
        client.sendall(GET_A)
        with accept(server) as far:
            assert receive_exactly(far, len(GET_A)) == GET_A
            far.sendall(OK)
            assert receive_exactly(client, len(OK)) == OK
            client.sendall(GET_EVIL)
            assert receive_all(client).startswith(b"HTTP/1.1 403 Forbidden\r\n")
            with pytest.raises(ConnectionResetError):
                assert far.recv(100) == b"nothing", "the denied request must not reach the server"


def test_a_denied_request_behind_a_pipelined_one_is_answered_last(
    net: Net, router: Router, server: socket.socket
) -> None:
    with net.connect(80) as client:
        client.sendall(GET_A + GET_EVIL + GET_A)
        with accept(server) as far:
            assert receive_exactly(far, len(GET_A)) == GET_A
            assert is_silent(far)
            assert is_silent(client)
            far.sendall(OK[:-1])
            assert receive_exactly(client, len(OK) - 1) == OK[:-1]
            assert is_silent(client)
            far.sendall(OK[-1:])
            rest = receive_all(client)
            assert rest.startswith(b"kHTTP/1.1 403 Forbidden\r\n")
            assert is_reset(far)


def test_another_allowed_host_on_the_same_connection_is_misdirected(
    net: Net, router: Router, server: socket.socket
) -> None:
    router.names.known["b.test"] = (OTHER4,)
    with net.listen(80, at=OTHER4) as other, net.connect(80) as client:
        client.sendall(GET_A)
        with accept(server) as far:
            receive_exactly(far, len(GET_A))
            far.sendall(OK)
            receive_exactly(client, len(OK))
            client.sendall(GET_B)
            assert receive_all(client).startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
            assert is_reset(far)
        with net.connect(80) as again:
            again.sendall(GET_B)
            with accept(other) as far:
                assert receive_exactly(far, len(GET_B)) == GET_B


@pytest.mark.parametrize("behind", [GET_EVIL, b"GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\n\r\n"])
def test_a_server_that_never_answers_learns_that_the_client_left(
    net: Net, router: Router, server: socket.socket, behind: bytes
) -> None:
    client = net.connect(80)
    client.sendall(GET_A + behind)
    with accept(server) as far:
        receive_exactly(far, len(GET_A))
        client.close()
        assert receive_all(far) in (b"", behind)
    assert router.wait_for(lambda: router.relay.flow_count("dbx_1") == 0)


def test_a_server_that_answered_and_left_before_the_request_came(net: Net, router: Router) -> None:
    with net.listen(8080) as listener, net.connect(8080) as client:
        with accept(listener) as far:
            far.sendall(OK)
        assert receive_all(client) == OK
        client.sendall(GET_A + GET_EVIL)
        client.close()
    assert router.wait_for(lambda: router.relay.flow_count("dbx_1") == 0)


def test_requests_are_written_anew(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(80) as client:
        client.sendall(b"POST http://A.TEST/x HTTP/1.1\r\nHost:   a.test\r\nTransfer-Encoding: CHUNKED\r\n\r\n")
        client.sendall(b"3;ext\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n")
        with accept(server) as far:
            written = b"POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            assert receive_exactly(far, len(written)) == written


@pytest.mark.parametrize("size", [0, 1, 20_000, 3 << 20])
def test_bodies_both_ways_on_one_connection(net: Net, router: Router, server: socket.socket, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    request = b"PUT /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % size + body
    chunks = [body[start : start + 70_000] for start in range(0, size, 70_000)]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    responses = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
    ]
    with net.connect(80) as client:
        far = None
        for response in (*responses, *responses):
            with sending(client, request, finishes=False):
                far = far or accept(server)
                assert receive_exactly(far, len(request)) == request
            with sending(far, response, finishes=False):
                assert receive_exactly(client, len(response)) == response
        client.sendall(GET_EVIL)
        assert receive_all(client).startswith(b"HTTP/1.1 403 ")
        assert far is not None
        far.close()


def test_a_response_until_the_end_ends_the_connection(net: Net, router: Router, server: socket.socket) -> None:
    response = b"HTTP/1.0 200 OK\r\n\r\n" + bytes(3 << 20)
    with net.connect(80) as client:
        client.sendall(GET_A)
        far = accept(server)
        receive_exactly(far, len(GET_A))
        with sending(far, response):
            assert receive_all(client) == response
        far.close()
    assert router.wait_for(lambda: router.relay.flow_count("dbx_1") == 0)


def test_the_client_may_finish_after_its_request(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(80) as client:
        client.sendall(GET_A)
        client.shutdown(socket.SHUT_WR)
        with accept(server) as far:
            assert receive_all(far) == GET_A
            far.sendall(OK)
        assert receive_all(client) == OK


def upgrade(client: socket.socket, server: socket.socket) -> socket.socket:
    request = b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    client.sendall(request + b"early frame")
    far = accept(server)
    assert receive_until(far, b"\r\n\r\n") == request
    assert is_silent(far), "frames wait for the server's 101"
    return far


def test_a_websocket_passes_both_ways_after_the_101(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(80) as client, upgrade(client, server) as far:
        far.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nframe")
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert receive_exactly(client, 5) == b"frame"
        assert receive_exactly(far, 11) == b"early frame"
        for message in (b"\x81\x05hello", GET_EVIL):
            client.sendall(message)
            assert receive_exactly(far, len(message)) == message
            far.sendall(message)
            assert receive_exactly(client, len(message)) == message


def test_without_a_101_frames_are_read_as_requests(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(80) as client, upgrade(client, server) as far:
        far.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        client.sendall(b"\r\n\r\n")
        assert receive_all(client).startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type")
        assert is_reset(far)


def test_http_on_another_port_is_judged_all_the_same(net: Net, router: Router) -> None:
    with net.listen(8080) as listener, net.connect(8080) as client:
        with accept(listener) as far:
            client.sendall(GET_EVIL)
            assert receive_all(client).startswith(b"HTTP/1.1 403 ")
            assert is_reset(far)
        with net.connect(8080) as again, accept(listener) as far:
            again.sendall(GET_A)
            assert receive_exactly(far, len(GET_A)) == GET_A
