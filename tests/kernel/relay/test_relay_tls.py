"""TLS through the relay: what reached the far side, byte for byte."""

import socket
from collections.abc import Iterator

import pytest

from kernel.relay.rig import (
    CLOSED4,
    DEVBOX,
    OTHER4,
    SERVER4,
    SERVER6,
    Net,
    Router,
    accept,
    assert_nobody_came,
    is_reset,
    is_silent,
    receive_all,
    receive_exactly,
    sending,
)
from support.hellos import hello

pytestmark = pytest.mark.kernel


@pytest.fixture
def server(net: Net) -> Iterator[socket.socket]:
    with net.listen(443) as listener:
        yield listener


def test_an_allowed_name_reaches_its_host_with_the_hello_as_sent(
    net: Net, router: Router, server: socket.socket
) -> None:
    with net.connect(443) as client:
        client.sendall(hello("a.test"))
        with accept(server) as far:
            assert receive_exactly(far, len(hello("a.test"))) == hello("a.test")
            far.sendall(b"server hello")
            assert receive_exactly(client, 12) == b"server hello"


def test_a_forged_name_is_reset_and_nothing_reaches_the_server(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(443) as client:
        client.sendall(hello("evil.test"))
        assert is_reset(client)
    assert_nobody_came(server)
    assert [(record.verdict, record.reason, record.name) for record in router.take_records()] == [
        ("deny", "name_not_allowed", "evil.test")
    ]


def test_an_allowed_name_forged_to_another_address_reaches_only_its_own_host(net: Net, router: Router) -> None:
    router.teach("a.test", CLOSED4)
    router.names.known["b.test"] = (OTHER4,)
    with net.listen(443, at=OTHER4) as own, net.listen(443, at=CLOSED4) as chosen:
        with net.connect(443, to=CLOSED4) as client:
            client.sendall(hello("b.test"))
            with accept(own) as far:
                assert receive_exactly(far, len(hello("b.test"))) == hello("b.test")
        assert_nobody_came(chosen)
    assert router.names.asked == ["b.test"]


def test_an_address_that_no_lookup_taught_is_reset(net: Net, router: Router) -> None:
    with net.listen(443, at=OTHER4) as listener:
        with net.connect(443, to=OTHER4) as client:
            client.sendall(hello("a.test"))
            assert is_reset(client)
        assert_nobody_came(listener)


def test_a_name_that_resolves_to_the_hosts_own_address_is_not_dialled(net: Net, router: Router) -> None:
    router.names.known["b.test"] = ("45.11.7.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")
    with net.connect(443) as client:
        client.sendall(hello("b.test"))
        assert is_reset(client)
    assert router.take_records()[-1].reason.startswith("floor_")


@pytest.mark.parametrize("fragment", [1 << 14, 100, 7])
def test_a_hello_in_pieces_is_held_until_it_is_whole(
    net: Net, router: Router, server: socket.socket, fragment: int
) -> None:
    data = hello("a.test", fragment=fragment, pad=2000)
    with net.connect(443) as client:
        client.sendall(data[:40])
        assert is_silent(client)
        assert_nobody_came(server)
        client.sendall(data[40:1500])
        assert_nobody_came(server)
        client.sendall(data[1500:])
        with accept(server) as far:
            assert receive_exactly(far, len(data)) == data


def test_ipv6_takes_the_same_path(net: Net, router: Router) -> None:
    router.teach("a.test", SERVER6)
    with net.listen(443, at=SERVER6) as listener:
        with net.connect(443, to=SERVER6) as client:
            client.sendall(hello("evil.test"))
            assert is_reset(client)
        assert_nobody_came(listener)
        with net.connect(443, to=SERVER6) as client:
            client.sendall(hello("a.test"))
            with accept(listener) as far:
                assert receive_exactly(far, len(hello("a.test"))) == hello("a.test")


def test_both_families_are_raced_when_the_first_does_not_answer(net: Net, router: Router) -> None:
    router.names.known["b.test"] = ("2a0a:7::99", OTHER4)  # nobody has the first one
    with net.listen(443, at=OTHER4) as listener, net.connect(443) as client:
        client.sendall(hello("b.test"))
        with accept(listener) as far:
            assert receive_exactly(far, len(hello("b.test"))) == hello("b.test")


def test_a_refused_upstream_is_a_reset_and_no_clean_end(net: Net, router: Router) -> None:
    router.teach("a.test", CLOSED4)
    with net.connect(443, to=CLOSED4) as client:
        client.sendall(hello("a.test"))
        assert is_reset(client)
    assert "Connection refused" in router.take_records()[-1].sentence


def test_a_hello_that_does_not_come_is_reset_after_ten_seconds(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(443) as client:
        client.sendall(hello("a.test")[:50])
        assert is_silent(client)
        router.skip_time(9.5)
        assert is_silent(client)
        router.skip_time(1)
        assert is_reset(client)
    assert_nobody_came(server)


def test_a_hello_that_is_too_long_is_reset(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(443) as client:
        client.sendall(hello("a.test", pad=19_000))
        assert is_reset(client)
    assert_nobody_came(server)


SIZES = [0, 1, 16_383, 16_384, 16_385, 65_536, 1 << 20, 8 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_the_client_may_finish_first_and_still_read(net: Net, router: Router, server: socket.socket, size: int) -> None:
    data = hello("a.test") + bytes(size)
    reply = b"r" * size
    with net.connect(443) as client:
        with sending(client, data), accept(server) as far:
            assert receive_all(far) == data
            far.sendall(reply)
        assert receive_all(client) == reply


@pytest.mark.parametrize("size", SIZES)
def test_the_server_may_finish_first_and_still_read(net: Net, router: Router, server: socket.socket, size: int) -> None:
    first, rest, reply = hello("a.test"), bytes(size), b"r" * size
    with net.connect(443) as client:
        client.sendall(first)
        with accept(server) as far:
            assert receive_exactly(far, len(first)) == first
            with sending(far, reply):
                assert receive_all(client) == reply
            with sending(client, rest):
                assert receive_all(far) == rest


def test_a_slow_reader_gets_every_byte(net: Net, router: Router, server: socket.socket) -> None:
    """Backpressure: the server is far ahead of the client, and bytes wait in pipes and sockets."""
    size = 24 << 20
    with net.connect(443) as client:
        client.sendall(hello("a.test"))
        with accept(server) as far:
            receive_exactly(far, len(hello("a.test")))
            data = bytes(range(256)) * (size // 256)
            with sending(far, data):
                assert is_silent(far)
                assert receive_all(client) == data


def test_a_reset_of_one_side_resets_the_other(net: Net, router: Router, server: socket.socket) -> None:
    for closes_first in ("client", "server"):
        client = net.connect(443)
        client.sendall(hello("a.test"))
        far = accept(server)
        receive_exactly(far, len(hello("a.test")))
        closing, other = (client, far) if closes_first == "client" else (far, client)
        closing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        closing.close()
        assert is_reset(other), closes_first
        other.close()
    assert router.flow_count() == 0


def test_records_count_what_passed(net: Net, router: Router, server: socket.socket) -> None:
    with net.connect(443) as client:
        client.sendall(hello("a.test") + b"12345")
        with accept(server) as far:
            receive_exactly(far, len(hello("a.test")) + 5)
            far.sendall(b"123")
        assert receive_all(client) == b"123"
        assert far.fileno() == -1
    assert router.wait_for(lambda: router.relay.flow_count(DEVBOX) == 0)
    decision, finished = router.take_records()
    assert (decision.verdict, decision.rule, decision.name, decision.protocol) == (
        "allow",
        "allowed_hostnames[0] a.test",
        "a.test",
        "tls",
    )
    assert (decision.address, decision.port, decision.point) == (SERVER4, 443, "relay")
    assert (finished.bytes_out, finished.bytes_in) == (len(hello("a.test")) + 5, 3)
