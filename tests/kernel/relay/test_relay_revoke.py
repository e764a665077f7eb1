"""A changed policy resets the flows that lost their rule, on both sides, and no other."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kernel.relay.rig import (
    DEVBOX,
    OTHER4,
    OTHER_BOX4,
    OTHER_DEVBOX,
    SERVER4,
    Net,
    Router,
    accept,
    is_reset,
    is_silent,
    policy,
    receive_exactly,
)
from support.hellos import hello

pytestmark = pytest.mark.kernel

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Pair:
    """Both ends of one relayed flow."""

    client: socket.socket
    far: socket.socket

    def is_alive(self) -> bool:
        self.client.sendall(b"ping")
        self.far.sendall(b"pong")
        return receive_exactly(self.far, 4) == b"ping" and receive_exactly(self.client, 4) == b"pong"

    def is_reset(self) -> bool:
        return is_reset(self.client) and is_reset(self.far)

    def close(self) -> None:
        self.client.close()
        self.far.close()


class Flows:
    """Opens flows and closes them all in the end."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._listeners: dict[tuple[str, int], socket.socket] = {}
        self._pairs: list[Pair] = []

    def listener(self, address: str, port: int) -> socket.socket:
        if (address, port) not in self._listeners:
            self._listeners[address, port] = self._net.listen(port, at=address)
        return self._listeners[address, port]

    def open(self, first: bytes, *, port: int = 443, to: str = SERVER4, far_at: str = "", source: str = "") -> Pair:
        listener = self.listener(far_at or to, port)
        self.listener(to, port)
        client = self._net.connect(port, to=to, **({"source": source} if source else {}))
        client.sendall(first)
        pair = Pair(client, accept(listener))
        assert receive_exactly(pair.far, len(first)) == first
        self._pairs.append(pair)
        return pair

    def close(self) -> None:
        for pair in self._pairs:
            pair.close()
        for listener in self._listeners.values():
            listener.close()


@pytest.fixture
def flows(net: Net, router: Router) -> Iterator[Flows]:
    router.teach("b.test", SERVER4)
    router.teach("a.test", SERVER4, devbox=OTHER_DEVBOX)
    opened = Flows(net)
    yield opened
    opened.close()


def test_only_flows_that_lost_their_rule_are_reset_on_both_sides(router: Router, flows: Flows) -> None:
    kept = [
        flows.open(hello("a.test")),
        flows.open(b"\x00binary", port=5432),
        flows.open(hello("a.test"), source=OTHER_BOX4),
    ]
    lost = [flows.open(hello("b.test")), flows.open(hello("b.test"), port=8443)]
    http = flows.open(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n", port=80)
    http.far.sendall(OK)
    receive_exactly(http.client, len(OK))
    router.take_records()
    assert router.apply(policy("a.test", revision=2)) == 3
    assert all(pair.is_reset() for pair in (*lost, http))
    assert all(pair.is_alive() for pair in kept)
    records = router.take_records()
    denials = [record for record in records if record.verdict == "deny"]
    assert {(record.reason, record.revision, record.name) for record in denials} == {("not_resolved", 2, "b.test")}
    assert all("b.test" in record.sentence for record in denials)
    assert (router.flow_count(DEVBOX), router.flow_count(OTHER_DEVBOX)) == (2, 1)


def test_a_transfer_in_full_flight_is_cut(router: Router, flows: Flows) -> None:
    pair = flows.open(hello("b.test"))
    pair.client.settimeout(0.5)
    with pytest.raises(TimeoutError):  # nobody reads at the far end, so everything in between fills up
        pair.client.sendall(bytes(64 << 20))
    assert router.apply(policy("a.test", revision=2)) == 1
    assert is_reset(pair.far)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        pair.client.sendall(b"more")


def test_a_name_taught_elsewhere_keeps_its_flow_when_the_teaching_rule_goes(router: Router, flows: Flows) -> None:
    """The flow stands on the rule for the host it was connected to, not on the one that taught the address."""
    router.names.known["b.test"] = (OTHER4,)
    router.call(lambda: router.table.pins.forget_devbox(DEVBOX, router.loop.now()))
    router.teach("a.test", SERVER4)
    pair = flows.open(hello("b.test"), far_at=OTHER4)
    assert router.apply(policy("b.test", revision=2)) == 0
    assert pair.is_alive()
    assert router.apply(policy("a.test", revision=3)) == 1
    assert pair.is_reset()


def test_a_flow_that_has_not_spoken_yet_is_judged_by_the_policy_of_then(net: Net, router: Router, flows: Flows) -> None:
    listener = flows.listener(SERVER4, 443)
    with net.connect(443) as client:
        client.sendall(hello("b.test")[:20])
        assert is_silent(client)
        assert router.apply(policy("a.test", revision=2)) == 0
        client.sendall(hello("b.test")[20:])
        assert is_reset(client)
    listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_flow_whose_name_is_being_resolved_is_reset_and_never_dialled(net: Net, router: Router, flows: Flows) -> None:
    router.call(lambda: router.table.pins.forget_devbox(DEVBOX, router.loop.now()))
    router.teach("a.test", SERVER4)
    router.names.known["b.test"] = (OTHER4,)
    listener = flows.listener(OTHER4, 443)
    router.names.is_slow = True
    try:
        with net.connect(443) as client:
            client.sendall(hello("b.test"))
            assert router.wait_for(lambda: "b.test" in router.names.asked)
            assert router.apply(policy("a.test", revision=2)) == 1
            assert is_reset(client)
    finally:
        router.names.is_slow = False
    router.call(router.names.answer_held)
    listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_a_relayed_flow_outlives_a_time_of_allow_all(router: Router, flows: Flows) -> None:
    a, b = flows.open(hello("a.test")), flows.open(hello("b.test"))
    assert router.apply(policy(allow_all=True, revision=2)) == 0
    assert a.is_alive()
    assert b.is_alive()
    assert router.apply(policy("a.test", revision=3)) == 1
    assert a.is_alive()
    assert b.is_reset()


@pytest.mark.parametrize("first", [hello("a.test"), b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"], ids=["TLS", "HTTP"])
def test_a_flow_that_passed_uninspected_does_not_outlive_allow_all(router: Router, flows: Flows, first: bytes) -> None:
    router.apply(policy(allow_all=True, revision=2))
    pair = flows.open(first, port=80)
    assert pair.is_alive()
    assert router.apply(policy("a.test", revision=3)) == 1
    assert pair.is_reset()


def test_a_flow_that_a_network_rule_carries_falls_with_that_rule(router: Router, flows: Flows) -> None:
    router.apply(policy(cidrs=("45.11.7.0/24",), revision=2))
    pair = flows.open(hello("a.test"))
    assert router.apply(policy("a.test", cidrs=("45.11.7.0/24",), revision=3)) == 0
    assert pair.is_alive()
    assert router.apply(policy("a.test", revision=4)) == 1
    assert pair.is_reset()


def test_a_devbox_that_is_gone_loses_its_flows_and_no_other_does(router: Router, flows: Flows) -> None:
    mine, other = flows.open(hello("a.test")), flows.open(hello("a.test"), source=OTHER_BOX4)
    assert router.call(lambda: router.relay.drop_devbox(DEVBOX)) == 1
    assert mine.is_reset()
    assert other.is_alive()
    assert (router.flow_count(DEVBOX), router.flow_count(OTHER_DEVBOX)) == (0, 1)
