"""Lookups end at the gate wherever they were sent, and pinned addresses at the relay."""

import socket
from ipaddress import ip_address

import pytest

from outgate.dataplane import netns
from outgate.dataplane.conntrack import Conntrack
from outgate.dataplane.nfnetlink import Nfnetlink
from outgate.dataplane.pin_elements import Pin, add_pins
from outgate.model.plan import PolicyPlan, grant_of_allow_all
from support.driver_world import ALLOWED4, ALLOWED6, DENIED_WITHIN_S, OTHER4, OTHER6, World, cidr_plan, everything_plan
from support.fake_gate import fake_gate

pytestmark = [
    pytest.mark.kernel,
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


def names_only(number: int) -> PolicyPlan:
    """The plan of a policy that has host names alone."""
    return PolicyPlan(number, grant_of_allow_all(number), frozenset(), (), ())


@pytest.mark.parametrize("plan", [names_only(16), everything_plan(16)], ids=["names only", "allow_all"])
def test_lookups_anywhere_are_answered_by_the_gate(world: World, plan: PolicyPlan) -> None:
    world.driver().set(world.state(plan, boxes={0: 16}))
    own = {str(world.layout.address4(0)), str(world.layout.address6(0))}
    servers = (str(world.layout.gateway4), str(world.layout.gateway6), OTHER4, OTHER6, "8.8.8.8", "169.254.169.254")

    with fake_gate(world.layout) as asked, world.far.tap() as tap:
        for server in servers:
            # The answer must seem to come from the server that was asked: the socket is connected to it.
            assert world.udp(0, server, 53, b"query").recv(100) == b"answer"
            stream = world.connect(0, server, 53)
            stream.sendall(b"query")
            assert stream.recv(100) == b"answer"
        # Once more over the same flow: answers keep finding their way.
        again = world.udp(0, OTHER4, 53, b"query")
        again.recv(100)
        again.send(b"query")
        assert again.recv(100) == b"answer"
        arrived = tap.packets(lambda packet: _transport(packet) in (6, 17))

    assert set(asked) == own
    assert len(asked) == 2 * len(servers) + 2
    assert arrived == []


def test_lookups_at_the_gateway_are_not_tracked(world: World) -> None:
    world.driver().set(world.state(names_only(16), boxes={0: 16}))
    with fake_gate(world.layout):
        for _ in range(20):
            assert world.udp(0, str(world.layout.gateway4), 53).recv(100) == b"answer"
    with netns.entered(world.layout.router_namespace), Conntrack() as table:
        assert not table.sources() & {world.layout.address4(0), world.layout.address6(0)}


def test_without_a_gate_lookups_fail_at_once(world: World) -> None:
    world.driver().set(world.state(names_only(16), boxes={0: 16}))
    for server in (str(world.layout.gateway4), OTHER4, OTHER6):
        with pytest.raises(ConnectionRefusedError):
            world.udp(0, server, 53).recv(100)
        assert world.refused_within_s(0, server, 53) < DENIED_WITHIN_S


def relay_listener(world: World, family: socket.AddressFamily) -> socket.socket:
    with netns.entered(world.layout.router_namespace):
        listener = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    else:
        listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    listener.bind(("", world.layout.relay_port))
    listener.listen()
    listener.settimeout(20)
    return listener


def pin(world: World, slot: int, *addresses: str) -> None:
    pins = [Pin(world.layout.link(slot), ip_address(a), 60_000, ("a.example.com",)) for a in addresses]
    with netns.entered(world.layout.router_namespace), Nfnetlink() as netfilter:
        netfilter.batch(add_pins(pins))


@pytest.mark.parametrize("address", [OTHER4, OTHER6])
def test_a_pinned_address_leads_to_the_relay(world: World, address: str) -> None:
    world.driver().set(world.state(names_only(16), boxes={0: 16, 1: 16}))
    listener = relay_listener(world, socket.AF_INET6 if ":" in address else socket.AF_INET)
    pin(world, 0, address)

    with world.far.tap() as tap:
        client = world.connect(0, address, 443)
        accepted, peer = listener.accept()
        client.sendall(b"hello")
        assert accepted.recv(10) == b"hello"
        accepted.sendall(b"world" * 1000)
        received = b""
        while len(received) < 5000:
            received += client.recv(10_000)
        assert accepted.getsockname()[:2] == (address, 443)
        assert ip_address(peer[0]) in (world.layout.address4(0), world.layout.address6(0))
        # The pin is the devbox's own, and covers TCP only.
        assert world.refused_within_s(1, address, 443) < DENIED_WITHIN_S
        with pytest.raises(ConnectionRefusedError):
            world.udp(0, address, 443).recv(10)
        assert world.refused_within_s(0, address, 853) < DENIED_WITHIN_S
        arrived = tap.packets(lambda packet: _transport(packet) in (6, 17))

    assert arrived == []


def _transport(packet: bytes) -> int:
    return packet[6] if packet[0] >> 4 == 6 else packet[9]


@pytest.mark.parametrize("address", [OTHER4, OTHER6])
def test_without_a_relay_pinned_addresses_are_closed(world: World, address: str) -> None:
    world.driver().set(world.state(names_only(16), boxes={0: 16}))
    world.far.listen(address)
    pin(world, 0, address)

    with world.far.tap() as tap:
        with pytest.raises(TimeoutError):
            world.connect(0, address, timeout_s=0.5)
        arrived = tap.packets(lambda packet: _transport(packet) == 6)

    assert arrived == []


def test_a_dead_relay_leaves_its_flows_closed(world: World) -> None:
    world.driver().set(world.state(names_only(16), boxes={0: 16}))
    listener = relay_listener(world, socket.AF_INET)
    pin(world, 0, OTHER4)
    client = world.connect(0, OTHER4)
    accepted, _ = listener.accept()
    # Gone without a word, as by SIGKILL of a whole machine: repair mode closes without FIN or RST.
    accepted.setsockopt(socket.IPPROTO_TCP, 19, 1)
    accepted.close()
    listener.close()

    with world.far.tap() as tap:
        client.send(b"into the void")
        arrived = tap.packets(lambda packet: _transport(packet) == 6)

    assert arrived == []


def test_the_relays_port_is_no_way_in(world: World) -> None:
    world.driver().set(world.state(names_only(16), boxes={0: 16}))
    listener = relay_listener(world, socket.AF_INET)
    listener.setblocking(False)

    for address in (OTHER4, str(world.layout.gateway4), str(world.layout.uplink_router4)):
        assert world.refused_within_s(0, address, world.layout.relay_port) < DENIED_WITHIN_S
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_cidr_rule_comes_before_a_pin(world: World) -> None:
    world.driver().set(world.state(cidr_plan(16, ("45.45.46.0/24", 20, None, 1, 65535)), boxes={0: 16}))
    listener = relay_listener(world, socket.AF_INET)
    listener.setblocking(False)
    server = world.far.listen(ALLOWED4)
    pin(world, 0, ALLOWED4, ALLOWED6)

    world.connect(0, ALLOWED4).close()

    server.accept()[0].close()
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_relay_itself_cannot_reach_what_is_always_denied(world: World) -> None:
    world.driver().set(world.state(names_only(16), boxes={0: 16}))
    layout = world.layout
    server = world.far.listen(OTHER4)
    with netns.entered(layout.router_namespace):
        with socket.create_connection((OTHER4, 443), timeout=3):
            pass
        for address in ("169.254.169.254", "45.45.45.1", str(layout.uplink_host4)):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, 443), timeout=3)
    server.accept()[0].close()
