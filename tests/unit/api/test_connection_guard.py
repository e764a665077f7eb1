"""Which connections are ended and when: the guard on sockets of this process, with the time as an argument."""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from starlette.types import Receive, Scope, Send

from outgate.api.connection_guard import (
    CROWDED_QUIET_S_MAX,
    QUIET_S_MAX,
    SENDING_S_MAX,
    ConnectionGuard,
)

Pair = tuple[socket.socket, socket.socket]
NOW_S = 5000.0


async def ignore(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send


async def unused_receive() -> dict[str, str]:
    raise AssertionError


async def unused_send(message: object) -> None:
    raise AssertionError(message)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield bound


@pytest.fixture
def guard(listening: socket.socket) -> ConnectionGuard:
    return ConnectionGuard(ignore, listening, places=1000)


def connect(listening: socket.socket, source: str = "127.0.0.1") -> Pair:
    """A client's end and the server's end."""
    client = socket.create_connection(listening.getsockname(), 10, source_address=(source, 0))
    accepted, _ = listening.accept()
    return client, accepted


def is_ended(pair: Pair) -> bool:
    client, _ = pair
    client.settimeout(0.01)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False


def close(*pairs: Pair) -> None:
    for client, accepted in pairs:
        client.close()
        accepted.close()


def test_a_connection_is_ended_after_its_time_and_not_before(guard: ConnectionGuard, listening: socket.socket) -> None:
    pair = connect(listening)
    guard.look(NOW_S)
    guard.look(NOW_S + QUIET_S_MAX)
    assert not is_ended(pair)
    guard.look(NOW_S + QUIET_S_MAX + 1)
    assert is_ended(pair)
    close(pair)


def test_a_request_under_way_keeps_it_and_the_time_begins_anew_behind_it(
    guard: ConnectionGuard, listening: socket.socket
) -> None:
    pair = connect(listening)
    busy = asyncio.Event()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        guard.look(NOW_S + 1000)
        guard.look(NOW_S + 2000)
        busy.set()

    guard.app = serve
    guard.look(NOW_S)
    scope = {"type": "http", "client": pair[0].getsockname()}
    asyncio.run(guard(scope, unused_receive, unused_send))
    assert busy.is_set()
    guard.look(NOW_S + 3000)
    guard.look(NOW_S + 3000 + QUIET_S_MAX)
    assert not is_ended(pair)
    guard.look(NOW_S + 3000 + QUIET_S_MAX + 1)
    assert is_ended(pair)
    close(pair)


def test_an_answer_on_its_way_keeps_it_for_a_while(guard: ConnectionGuard, listening: socket.socket) -> None:
    slow, idle = connect(listening), connect(listening)
    slow[1].setblocking(False)
    try:
        while True:
            slow[1].send(b"x" * 65536)
    except BlockingIOError:
        pass  # the client reads nothing: its buffers are full
    guard.look(NOW_S)
    guard.look(NOW_S + QUIET_S_MAX + 1)
    assert is_ended(idle), "of two quiet connections the one that has nothing to send is ended"
    guard.look(NOW_S + SENDING_S_MAX)
    with pytest.raises(BlockingIOError):
        slow[1].send(b"x")
    guard.look(NOW_S + SENDING_S_MAX + 1)
    with pytest.raises(BrokenPipeError):
        slow[1].send(b"x")
    close(slow, idle)


def test_most_places_taken_shorten_the_time(listening: socket.socket) -> None:
    guard = ConnectionGuard(ignore, listening, places=4)
    pairs = [connect(listening) for _ in range(4)]
    guard.look(NOW_S)
    guard.look(NOW_S + CROWDED_QUIET_S_MAX + 1)
    assert all(is_ended(pair) for pair in pairs)
    close(*pairs)


def test_of_a_client_with_too_many_the_surplus_is_ended_and_nobody_elses(
    guard: ConnectionGuard, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgate.api.connection_guard.PER_CLIENT_MAX", 3)
    old = [connect(listening) for _ in range(3)]
    guard.look(NOW_S)
    new = [connect(listening) for _ in range(5)]
    other = [connect(listening, "127.0.0.9") for _ in range(3)]
    assert guard.look(NOW_S + 1) == {"127.0.0.1": 5}
    assert [is_ended(pair) for pair in (*old, *new, *other)] == [False] * 3 + [True] * 5 + [False] * 3
    close(*old, *new, *other)


def test_a_trusted_proxy_is_many_clients(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outgate.api.connection_guard.PER_CLIENT_MAX", 3)
    guard = ConnectionGuard(ignore, listening, places=1000, proxies=(ip_network("127.0.0.1/32"),))
    pairs = [connect(listening) for _ in range(8)]
    assert not guard.look(NOW_S)
    assert not any(is_ended(pair) for pair in pairs)
    close(*pairs)


def test_sockets_of_others_are_left_alone(guard: ConnectionGuard, listening: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        foreign, outgoing = connect(elsewhere), socket.socketpair()
        guard.look(NOW_S)
        guard.look(NOW_S + 10 * SENDING_S_MAX)
        assert not is_ended(foreign)
        assert not is_ended(outgoing)
        close(foreign, outgoing)
    connected = connect(listening)
    assert connected[0].getpeername() == listening.getsockname()
    close(connected)


def test_a_descriptor_that_was_used_again_is_not_ended_for_the_one_before(
    guard: ConnectionGuard, listening: socket.socket
) -> None:
    first = connect(listening)
    guard.look(NOW_S)
    number = first[1].fileno()
    close(first)
    second = connect(listening)
    try:
        guard.look(NOW_S + QUIET_S_MAX + 1)
        assert not is_ended(second), f"descriptor {number} may be another connection's by now"
    finally:
        close(second)


def test_mapped_addresses_of_a_socket_for_both_families_are_the_ipv4_ones() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as bound:
        guard = ConnectionGuard(ignore, bound, places=1000)
        with socket.create_connection(("127.0.0.1", bound.getsockname()[1])) as client:
            accepted, _ = bound.accept()
            guard.look(NOW_S)
            seen = [connection.client for connection in guard._connections.values()]
            accepted.close()
            assert (seen, client.getsockname()[0]) == (["127.0.0.1"], "127.0.0.1")
