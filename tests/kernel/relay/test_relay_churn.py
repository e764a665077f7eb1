"""Clients and servers that come, go, reset and stall at random moments leave nothing behind."""

import random
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from kernel.relay.rig import CLOSED4, DEVBOX, SERVER4, Net, Router, policy
from support.hellos import hello

pytestmark = pytest.mark.kernel

_PORTS = (80, 443, 25, 8080)
_FIRST = (
    hello("a.test"),
    hello("b.test", fragment=9),
    hello("evil.test"),
    b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" * 3,
    b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: 90000\r\n\r\n" + bytes(90_000),
    b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nxx",
    b"EHLO box\r\n",
    b"\x00\x01\x02",
    b"",
)
_REPLIES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n" + bytes(300_000),
    bytes(1000),
    b"",
)


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def end(connection: socket.socket, chance: random.Random) -> None:
    if chance.random() < 0.4:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    elif chance.random() < 0.3:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.2)
            connection.recv(1000)
    connection.close()


def serve(listener: socket.socket, seed: int) -> None:
    chance = random.Random(seed)
    while True:
        try:
            far, _ = listener.accept()
        except OSError:
            return
        with suppress(OSError):
            far.settimeout(0.05)
            if chance.random() < 0.7:
                far.recv(1 << 16)
            far.sendall(chance.choice(_REPLIES))
        end(far, chance)


def call(net: Net, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        try:
            client = net.connect(chance.choice(_PORTS), to=chance.choice((SERVER4, SERVER4, CLOSED4)))
        except OSError:
            continue
        with suppress(OSError):
            first = chance.choice(_FIRST)
            cut = chance.randrange(len(first) + 1)
            client.settimeout(0.05)
            client.sendall(first[:cut])
            if chance.random() < 0.8:
                client.sendall(first[cut:])
            client.recv(1 << 16)
        end(client, chance)


def test_nothing_is_left_behind(net: Net, router: Router) -> None:
    router.teach("b.test", SERVER4)
    router.teach("a.test", SERVER4, CLOSED4)
    router.call(lambda: None)
    before = count_descriptors()
    listeners = [net.listen(port) for port in _PORTS]
    servers = [threading.Thread(target=serve, args=(listener, seed)) for seed, listener in enumerate(listeners)]
    clients = [threading.Thread(target=call, args=(net, seed)) for seed in range(8)]
    for thread in (*servers, *clients):
        thread.start()
    for revision in range(2, 30):  # the policy turns around all the while
        router.apply(policy("a.test", "b.test", revision=2 * revision))
        router.apply(policy("a.test", revision=2 * revision + 1))
        threading.Event().wait(0.02)
    for thread in clients:
        thread.join(50)
        assert not thread.is_alive()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in servers:
        thread.join(20)
    counts = router.call(lambda: router.relay._flows.get(DEVBOX))  # soon forgotten: nothing flows any more
    router.skip_time(20)
    assert router.wait_for(lambda: router.relay.flow_count(DEVBOX) == 0)
    router.call(router.relay._context.pool.close)
    assert count_descriptors() <= before
    assert counts is None or router.call(lambda: counts.undecided) == 0
    context = router.relay._context
    assert router.call(
        lambda: (context.flows_open, len(context.handshakes), len(context.dials), len(context.lingers))
    ) == (0, 0, 0, 0)
    assert not router.errors
