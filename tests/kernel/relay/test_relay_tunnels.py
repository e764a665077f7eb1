"""Connections to tunnels: judged by name and account, handed to the front with who it is, cut when the rule goes."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from kernel.relay.rig import (
    BOX4,
    BOXES,
    DEVBOX,
    POLICY,
    Net,
    Router,
    is_reset,
    policy,
    receive_all,
    receive_exactly,
    running,
)
from outgate.model.flow import HostContext
from outgate.model.names import DomainName
from outgate.model.tunnels import INSIDE_LENGTH_BYTES, InsideHello, make_tunnel_key
from support.hellos import hello as make_hello

pytestmark = pytest.mark.kernel

GATEWAY = "10.213.0.1"
OWN = f"3000-{make_tunnel_key('acc_1', bytes(10))}.tunnel.test"
OTHERS = f"3000-{make_tunnel_key('acc_2', bytes(10))}.tunnel.test"
CONTEXT = HostContext(
    tunnel_domain=DomainName("tunnel.test"), tunnel_addresses=frozenset({ip_address(GATEWAY), ip_address("fd13::1")})
)


@pytest.fixture(scope="module")
def front_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("relay") / "inside.sock"


@pytest.fixture(scope="module")
def lab(front_path: Path) -> Iterator[tuple[Net, Router]]:
    with running(context=CONTEXT, front_socket=str(front_path)) as lab:
        yield lab


@pytest.fixture
def net(lab: tuple[Net, Router]) -> Net:
    return lab[0]


@pytest.fixture
def router(lab: tuple[Net, Router]) -> Iterator[Router]:
    router = lab[1]
    other = policy(policy_id="npol_2")
    router.apply(policy(allow_devbox_to_devbox=True), other, boxes=BOXES)
    router.take_records()
    yield router
    router.forget(DEVBOX)
    assert not router.errors, router.errors


@pytest.fixture
def front(front_path: Path) -> Iterator[socket.socket]:
    front_path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(front_path))
        listening.listen(8)
        listening.settimeout(20)
        yield listening


def get(name: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()


def take(front: socket.socket) -> tuple[InsideHello, socket.socket]:
    connection, _ = front.accept()
    connection.settimeout(20)
    length = int.from_bytes(receive_exactly(connection, INSIDE_LENGTH_BYTES), "big")
    return msgspec.json.decode(receive_exactly(connection, length), type=InsideHello), connection


def nobody_came(front: socket.socket) -> bool:
    front.settimeout(0.2)
    try:
        front.accept()
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("gateway", [GATEWAY, "fd13::1"])
def test_the_front_hears_who_it_is_and_then_what_was_said(
    net: Net, router: Router, front: socket.socket, gateway: str
) -> None:
    source = BOX4 if "." in gateway else "fd13::2"
    with net.connect(80, to=gateway, source=source) as client:
        client.sendall(get(OWN))
        hello, connection = take(front)
        with connection:
            assert hello == InsideHello(DEVBOX, "acc_1", OWN, is_tls=False)
            assert connection.recv(4096).startswith(b"GET / HTTP/1.1\r\n")
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(client).endswith(b"ok")


def test_tls_passes_as_it_is_in_bulk_and_both_ways(net: Net, router: Router, front: socket.socket) -> None:
    hello_bytes = make_hello(OWN)
    with net.connect(443, to=GATEWAY) as client:
        client.sendall(hello_bytes)
        hello, connection = take(front)
        with connection:
            assert hello.is_tls
            assert receive_exactly(connection, len(hello_bytes)) == hello_bytes
            bulk = bytes(range(256)) * 4096
            connection.sendall(b"down" + bulk[:100_000])
            assert receive_exactly(client, 100_004)[:4] == b"down"
            client.settimeout(20)
            client.sendall(bulk[:150_000])
            assert receive_exactly(connection, 150_000) == bulk[:150_000]


@pytest.mark.parametrize("name", [OTHERS, "tunnel.test", "a.tunnel.test", "a.test"])
def test_other_names_are_refused_by_a_page_or_a_reset(
    net: Net, router: Router, front: socket.socket, name: str
) -> None:
    with net.connect(80, to=GATEWAY) as client:
        client.sendall(get(name))
        assert receive_all(client).startswith(b"HTTP/1.1 403 ")
    with net.connect(443, to=GATEWAY) as client:
        client.sendall(make_hello(name))
        assert is_reset(client)
    assert nobody_came(front)
    reason = "tunnel_of_others" if name == OTHERS else "no_tunnel"
    assert {record.reason for record in router.take_records()} == {reason}


def test_without_the_flag_only_a_named_tunnel_is_open(net: Net, router: Router, front: socket.socket) -> None:
    router.apply(policy(OTHERS, revision=2))
    with net.connect(80, to=GATEWAY) as client:
        client.sendall(get(OTHERS))
        hello, connection = take(front)
        connection.close()
        assert hello.name == OTHERS
    with net.connect(80, to=GATEWAY) as client:
        client.sendall(get(OWN))
        assert b"reason: tunnel_not_allowed" in receive_all(client)


def test_a_flag_that_goes_cuts_what_runs_before_the_update_is_answered(
    net: Net, router: Router, front: socket.socket
) -> None:
    with net.connect(443, to=GATEWAY) as client:
        client.sendall(make_hello(OWN))
        _, connection = take(front)
        with connection:
            assert router.apply(policy(OWN, revision=2, allow_devbox_to_devbox=True)) == 0
            assert router.apply(policy(OWN, revision=3)) == 0, "its name is listed"
            assert router.apply(policy(revision=4)) == 1
            assert is_reset(client, within_s=1)
            receive_all(connection)  # the front sees the end


def test_other_protocols_and_a_front_that_is_not_there(net: Net, router: Router, front_path: Path) -> None:
    with net.connect(443, to=GATEWAY) as client:
        client.sendall(b"SSH-2.0-x\r\n")
        assert is_reset(client)
    front_path.unlink(missing_ok=True)
    with net.connect(80, to=GATEWAY) as client:
        client.sendall(get(OWN))
        assert is_reset(client)
    assert POLICY in {record.policy_id for record in router.take_records()}
