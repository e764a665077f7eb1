"""Ports other than 80 and 443: servers may speak first, clients are still judged."""

import socket
from dataclasses import replace

import pytest

from kernel.relay.rig import (
    CLOSED4,
    DEVBOX,
    OTHER4,
    Net,
    Router,
    accept,
    is_reset,
    is_silent,
    receive_all,
    receive_exactly,
)
from support.hellos import hello

pytestmark = pytest.mark.kernel


def test_a_server_that_speaks_first_is_heard_and_answered(net: Net, router: Router) -> None:
    with net.listen(25) as listener, net.connect(25) as client, accept(listener) as far:
        far.sendall(b"220 hello\r\n")
        assert receive_exactly(client, 11) == b"220 hello\r\n"
        client.sendall(b"EHLO box\r\n")
        assert receive_exactly(far, 10) == b"EHLO box\r\n"
        client.shutdown(socket.SHUT_WR)
        assert receive_all(far) == b""
        far.sendall(b"221 bye\r\n")
        far.close()
        assert receive_all(client) == b"221 bye\r\n"
    decision, finished = router.take_records()
    assert (decision.reason, finished.bytes_out, finished.bytes_in) == ("address_bound", 10, 20)


def test_the_clients_bytes_are_held_until_they_are_judged(net: Net, router: Router) -> None:
    with net.listen(25) as listener, net.connect(25) as client, accept(listener) as far:
        far.sendall(b"220 hello\r\n")
        receive_exactly(client, 11)
        client.sendall(b"POST / HT")
        assert is_silent(far)
        client.sendall(b"TP/1.1\r\nHost: evil.test\r\n\r\n")
        assert receive_all(client).startswith(b"HTTP/1.1 403 ")
        assert is_reset(far)


def test_a_client_that_only_listens(net: Net, router: Router) -> None:
    with net.listen(13) as listener, net.connect(13) as client:
        client.shutdown(socket.SHUT_WR)
        with accept(listener) as far:
            assert receive_all(far) == b""
            far.sendall(b"noon\r\n")
        assert receive_all(client) == b"noon\r\n"


def test_a_server_that_speaks_and_leaves(net: Net, router: Router) -> None:
    with net.listen(13) as listener, net.connect(13) as client:
        with accept(listener) as far:
            far.sendall(b"noon\r\n")
        assert receive_all(client) == b"noon\r\n"
    assert router.wait_for(lambda: router.relay.flow_count(DEVBOX) == 0)


def test_a_forged_name_is_reset_and_the_server_hears_nothing_of_it(net: Net, router: Router) -> None:
    with net.listen(8443) as listener, net.connect(8443) as client, accept(listener) as far:
        client.sendall(hello("evil.test"))
        assert is_reset(client)
        with pytest.raises(ConnectionResetError):
            assert far.recv(100) == b"nothing"


def test_another_allowed_name_is_connected_to_its_own_host(net: Net, router: Router) -> None:
    router.names.known["b.test"] = (OTHER4,)
    with net.listen(8443) as chosen, net.listen(8443, at=OTHER4) as own, net.connect(8443) as client:
        far = accept(chosen)
        client.sendall(hello("b.test"))
        with accept(own) as named:
            assert receive_exactly(named, len(hello("b.test"))) == hello("b.test")
            named.sendall(b"hi")
            assert receive_exactly(client, 2) == b"hi"
        with pytest.raises(ConnectionResetError):
            assert far.recv(100) == b"nothing"
        far.close()


def test_another_allowed_name_is_reset_once_the_server_was_heard(net: Net, router: Router) -> None:
    router.names.known["b.test"] = (OTHER4,)
    with net.listen(8443) as listener, net.connect(8443) as client, accept(listener) as far:
        far.sendall(b"hello\r\n")
        receive_exactly(client, 7)
        client.sendall(hello("b.test"))
        assert is_reset(client)
        assert is_reset(far)


def test_a_refused_connection_is_a_reset(net: Net, router: Router) -> None:
    router.teach("a.test", CLOSED4)
    try:
        client = net.connect(25, to=CLOSED4)
    except ConnectionResetError:
        return  # so soon that connect() itself hears of it
    with client:
        assert is_reset(client)


def test_an_untaught_address_is_not_even_dialled(net: Net, router: Router) -> None:
    with net.listen(25, at=OTHER4) as listener, net.connect(25, to=OTHER4) as client:
        listener.settimeout(0.3)
        with pytest.raises(TimeoutError):
            listener.accept()
        client.sendall(b"EHLO box\r\n")
        assert is_reset(client)


def test_with_the_setting_off_nothing_is_dialled_and_opaque_is_reset(net: Net, router: Router) -> None:
    def set_address_bound(value: bool) -> None:
        for entry in router.table.devboxes():
            entry.context = replace(entry.context, address_bound=value)

    router.call(lambda: set_address_bound(False))
    try:
        with net.listen(25) as listener, net.connect(25) as client:
            listener.settimeout(0.3)
            with pytest.raises(TimeoutError):
                listener.accept()
            client.sendall(b"EHLO box\r\n")
            assert is_reset(client)
    finally:
        router.call(lambda: set_address_bound(True))


def test_dns_over_tls_is_refused_whatever_it_names(net: Net, router: Router) -> None:
    with net.listen(853) as listener, net.connect(853) as client:
        client.sendall(hello("a.test"))
        assert is_reset(client)
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()
