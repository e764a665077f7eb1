"""Racing addresses: order, head start, the winner, and what is left of the others."""

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from outgate.dataplane.loop import Loop
from outgate.dataplane.relay_dial import ATTEMPTS_MAX, Connected, Race, order_addresses


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def run_race(loop: Loop, *addresses: str, port: int) -> Connected | OSError:
    ends: list[Connected | OSError] = []
    race = Race(loop, [ip_address(text) for text in addresses], port, ends.append)
    race.start()
    for _ in range(100):
        if ends:
            break
        loop.run_once(0.1)
    (end,) = ends
    return end


def test_families_take_turns_and_ipv6_begins() -> None:
    addresses = [ip_address(text) for text in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1")]
    assert [str(address) for address in order_addresses(addresses)] == [
        "2001:db8::1",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]
    assert len(order_addresses(addresses * 10)) == ATTEMPTS_MAX


def test_the_first_that_answers_wins(loop: Loop) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        end = run_race(loop, "127.0.0.1", "127.0.0.2", port=port)  # nobody listens at the first
        assert isinstance(end, Connected)
        assert str(end.address) == "127.0.0.2"
        end.socket.close()


def test_the_last_error_is_told_when_nobody_answers(loop: Loop) -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
    end = run_race(loop, "127.0.0.1", "127.0.0.2", port=port)
    assert isinstance(end, OSError)
    assert end.errno == errno.ECONNREFUSED


def test_no_address_is_an_error(loop: Loop) -> None:
    end = run_race(loop, port=1)
    assert isinstance(end, OSError)


def test_a_silent_address_is_overtaken_after_its_head_start(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_server(("127.0.0.2", 0)) as spare:
        port = full.getsockname()[1]
        spare.close()
        with socket.create_server(("127.0.0.2", port)):
            fillers = []
            for _ in range(4):  # a full backlog answers nobody
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
                fillers.append(filler)
            end = run_race(loop, "127.0.0.1", "127.0.0.2", port=port)
            assert isinstance(end, Connected)
            assert str(end.address) == "127.0.0.2"
            end.socket.close()
            for filler in fillers:
                filler.close()


def test_a_cancelled_race_says_nothing(loop: Loop) -> None:
    ends: list[Connected | OSError] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        race = Race(loop, [ip_address("127.0.0.1")], server.getsockname()[1], ends.append)
        race.start()
        race.cancel()
        loop.run_once(0.05)
    assert ends == []
