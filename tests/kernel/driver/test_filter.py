"""What leaves a devbox and what does not: asserted on what reached the far side."""

import select
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Network

import pytest

from outgate.core.ranges import embedding_networks
from outgate.dataplane import netns
from outgate.model.addresses import Protocol
from support.driver_world import (
    ACCEPT_TIMEOUT_S,
    ALLOWED4,
    ALLOWED6,
    DENIED_WITHIN_S,
    FAR4,
    HOST4,
    HOST6,
    OTHER4,
    OTHER6,
    PRIVATE4,
    World,
    cidr_plan,
    everything_plan,
    ip,
)

pytestmark = [
    pytest.mark.kernel,
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ALLOWED_NET = "45.45.46.0/24"
METADATA = "169.254.169.254"
ICMP_ECHO = 8


def names_address(*addresses: str) -> Callable[[bytes], bool]:
    """A filter for packets to one of the addresses."""
    packed = {socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in addresses}

    def wanted(packet: bytes) -> bool:
        return (packet[24:40] if packet[0] >> 4 == 6 else packet[16:20]) in packed

    return wanted


def echo(sequence: int = 1) -> bytes:
    body = struct.pack(">BBHHH", ICMP_ECHO, 0, 0, 7, sequence) + b"outgate!"
    total = sum(struct.unpack(f">{len(body) // 2}H", body))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack(">BBHHH", ICMP_ECHO, 0, checksum, 7, sequence) + b"outgate!"


def raw_socket(namespace: str, protocol: int) -> socket.socket:
    with netns.entered(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    made.settimeout(ACCEPT_TIMEOUT_S)
    return made


def test_an_allowed_network_is_reached_under_the_hosts_address(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    server = world.far.listen(ALLOWED4, 8443)

    client = world.connect(0, ALLOWED4, 8443)
    accepted, peer = server.accept()
    client.sendall(b"hello")

    assert accepted.recv(100) == b"hello"
    assert peer[0] == HOST4


def test_udp_and_echo_follow_a_rule_without_ports(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    receiver = world.far.datagrams(ALLOWED4, 9000)

    sender = world.udp(0, ALLOWED4, 9000)
    data, peer = receiver.recvfrom(100)
    receiver.sendto(b"pong", peer)
    assert (data, sender.recv(100)) == (b"ping", b"pong")

    pinger = raw_socket(world.box(0), socket.IPPROTO_ICMP)
    pinger.sendto(echo(), (ALLOWED4, 0))
    assert pinger.recvfrom(100)[1][0] == ALLOWED4


def test_an_error_about_an_allowed_flow_comes_back(world: World) -> None:
    world.driver().set(world.state(cidr_plan(16, (ALLOWED_NET, 20, Protocol.UDP, 1, 65535)), boxes={0: 16}))

    sender = world.udp(0, ALLOWED4, 9999)

    with pytest.raises(ConnectionRefusedError):
        sender.recv(100)


def test_a_rule_with_ports_covers_these_and_no_other_protocol(world: World) -> None:
    world.driver().set(world.state(cidr_plan(16, (ALLOWED_NET, 20, Protocol.TCP, 443, 444)), boxes={0: 16}))
    listeners = [world.far.listen(ALLOWED4, port) for port in (442, 443, 444, 445)]
    with world.far.tap() as tap:
        for port in (443, 444):
            world.connect(0, ALLOWED4, port).close()
        for port in (442, 445):
            assert world.refused_within_s(0, ALLOWED4, port) < DENIED_WITHIN_S
        with pytest.raises(OSError, match=r"host|refused"):
            world.udp(0, ALLOWED4, 443).recv(100)
        pinger = raw_socket(world.box(0), socket.IPPROTO_ICMP)
        pinger.sendto(echo(), (ALLOWED4, 0))
        arrived = tap.packets(names_address(ALLOWED4))

    ports = {struct.unpack(">H", packet[22:24])[0] for packet in arrived}
    assert {packet[9] for packet in arrived} == {Protocol.TCP}
    assert ports == {443, 444}
    assert len(listeners) == 4


@pytest.mark.parametrize(
    "address", [OTHER4, PRIVATE4, METADATA, HOST4, FAR4, ALLOWED6, OTHER6, HOST6, "240.0.0.1", "8.8.8.8"]
)
def test_everything_else_is_refused_at_once_and_nothing_of_it_arrives(world: World, address: str) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))

    with world.far.tap() as tap:
        took_s = world.refused_within_s(0, address)
        with pytest.raises(OSError, match=r"host|refused|denied"):
            world.udp(0, address, 9000).recv(100)
        arrived = tap.packets(names_address(address))

    assert took_s < DENIED_WITHIN_S
    assert arrived == []
    assert driver.denied_packets()["og0"] >= 2


def test_private_networks_open_with_everything_and_the_floor_does_not(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(everything_plan(16), boxes={0: 16, 1: 16}))
    for address in (OTHER4, PRIVATE4, OTHER6):
        server = world.far.listen(address)
        world.connect(0, address).close()
        server.accept()[0].close()
    layout = world.layout
    with netns.entered(world.box(1)):
        neighbour = socket.create_server(("", 443))
    host = socket.create_server(("", 443))
    with netns.entered(layout.router_namespace):
        router = socket.create_server(("", 443))

    unreachable = [
        METADATA,
        HOST4,
        str(layout.gateway4),
        str(layout.gateway6),
        str(layout.address4(1)),
        str(layout.address6(1)),
        str(layout.uplink_host4),
        str(layout.uplink_router4),
        str(layout.uplink_host6),
        # The forms in which IPv6 carries one of the host's own IPv4 addresses.
        *(str(network[0]) for network in embedding_networks(IPv4Network(HOST4)) if network[0].ipv4_mapped is None),
        str(embedding_networks(IPv4Network(HOST4))[-1][-1]),
    ]
    with world.far.tap() as tap:
        for address in unreachable:
            assert world.refused_within_s(0, address) < DENIED_WITHIN_S, address
        assert tap.packets(names_address(*unreachable)) == []
    for listener in (neighbour, host, router):
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_hosts_unlisted_addresses_are_closed_by_the_host_itself(world: World) -> None:
    # Not in the state's host addresses: the second lock is the host's own table.
    ip("address", "add", "45.45.48.1/32", "dev", "eth0")
    listener = socket.create_server(("45.45.48.1", 443))
    listener.setblocking(False)
    world.driver().set(world.state(everything_plan(16), boxes={0: 16}))

    with pytest.raises(TimeoutError):
        world.connect(0, "45.45.48.1", timeout_s=0.5)
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(("source", "target"), [("45.45.46.77", OTHER4), ("2a0f:4444:1::77", OTHER6)])
def test_a_spoofed_source_goes_nowhere(world: World, source: str, target: str) -> None:
    world.driver().set(world.state(everything_plan(16), boxes={0: 16}))
    is_ipv6 = ":" in source
    ip("-n", world.box(0), "address", "add", f"{source}/{128 if is_ipv6 else 32}", "dev", "lo", "nodad")
    with netns.entered(world.box(0)):
        sender = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind((source, 0))

    with world.far.tap() as tap:
        for _ in range(3):
            sender.sendto(b"spoofed", (target, 9000))
        assert tap.packets(names_address(target)) == []


def test_another_devboxs_source_goes_nowhere(world: World) -> None:
    world.driver().set(world.state(everything_plan(16), boxes={0: 16, 1: 16}))
    stolen = str(world.layout.address4(1))
    ip("-n", world.box(0), "address", "add", f"{stolen}/32", "dev", "lo")
    with netns.entered(world.box(0)):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind((stolen, 0))

    with world.far.tap() as tap:
        sender.sendto(b"stolen", (OTHER4, 9000))
        assert tap.packets(names_address(OTHER4)) == []


def test_nothing_new_comes_in_from_the_uplink(world: World) -> None:
    world.driver().set(world.state(everything_plan(16), boxes={0: 16}))
    with netns.entered(world.box(0)):
        servers = [socket.create_server((address, 443), family=family) for address, family in _ends(world)]
    for server, (address, family) in zip(servers, _ends(world), strict=True):
        client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect((address, 443))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def _ends(world: World) -> list[tuple[str, socket.AddressFamily]]:
    return [
        (str(world.layout.address4(0)), socket.AF_INET),
        (str(world.layout.address6(0)), socket.AF_INET6),
    ]


def test_a_segment_out_of_the_blue_is_reset_and_not_forwarded(world: World) -> None:
    world.driver().set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    source = world.layout.address4(0)
    raw = raw_socket(world.box(0), socket.IPPROTO_TCP)
    ack, fin_ack, rst, xmas, syn_fin = 0x10, 0x11, 0x04, 0x29, 0x03

    with world.far.tap() as tap:
        for flags in (ack, fin_ack, rst, xmas, syn_fin):
            raw.sendto(tcp_segment(source.packed, socket.inet_aton(ALLOWED4), flags), (ALLOWED4, 443))
            if flags == ack:  # the others are no beginning of anything to conntrack: dropped
                answer = raw.recv(100)
                assert answer[20 + 13] & 0x04, "no reset came back"
        assert tap.packets(names_address(ALLOWED4)) == []


def tcp_segment(source: bytes, destination: bytes, flags: int, payload: bytes = b"") -> bytes:
    header = struct.pack(">HHIIBBHHH", 40000 + flags, 443, 1000, 2000, 5 << 4, flags, 1024, 0, 0)
    pseudo = source + destination + struct.pack(">BBH", 0, 6, len(header) + len(payload))
    data = pseudo + header + payload + b"\0" * (len(payload) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return header[:16] + struct.pack(">H", checksum) + header[18:] + payload


def test_other_protocols_follow_rules_without_ports_only(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, ("45.45.46.1/32", 20, None, 1, 65535)), boxes={0: 16}))
    experimental = raw_socket(world.box(0), 253)  # RFC 3692: for experiments

    with world.far.tap() as tap:
        experimental.sendto(b"to the allowed address", (ALLOWED4, 0))
        experimental.sendto(b"to another one", ("45.45.46.2", 0))
        arrived = tap.packets(names_address(ALLOWED4, "45.45.46.2"))

    assert [packet[20:] for packet in arrived] == [b"to the allowed address"]


def test_a_devbox_holds_only_so_many_flows(world: World) -> None:
    flows_max = 16
    driver = world.driver(flows_max=flows_max)
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16, 1: 16}))
    server = world.far.listen(ALLOWED4)

    denials = driver.denials()
    held = [world.connect(0, ALLOWED4) for _ in range(flows_max)]
    with pytest.raises(ConnectionRefusedError):
        world.connect(0, ALLOWED4)
    _until(lambda: bool(_select(denials.fileno())))
    assert [denial.is_over_limit for denial in denials.read()] == [True]
    denials.close()
    world.connect(1, ALLOWED4).close()
    accepted = [server.accept()[0] for _ in range(flows_max)]
    for pair in zip(held[:4], accepted[:4], strict=True):
        for end in pair:
            end.close()
    _until(lambda: _connects(world, ALLOWED4))


def _connects(world: World, address: str) -> bool:
    try:
        world.connect(0, address).close()
    except ConnectionRefusedError:
        return False
    return True


def _until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_denied_attempts_do_not_use_up_the_bound(world: World) -> None:
    driver = world.driver(flows_max=16)
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    server = world.far.listen(ALLOWED4)

    for _ in range(100):
        world.refused_within_s(0, OTHER4)

    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()


def test_denials_are_told_with_their_ends(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    denials = driver.denials()
    world.refused_within_s(0, OTHER4, 8080)
    world.refused_within_s(0, OTHER6, 8081)
    told = set[tuple[object, ...]]()
    while len(told) < 2:
        _until(lambda: bool(_select(denials.fileno())))
        told |= {(str(d.destination), d.destination_port, d.protocol, d.link, str(d.source)) for d in denials.read()}
    denials.close()

    layout = world.layout
    assert told == {
        (OTHER4, 8080, Protocol.TCP, "og0", str(layout.address4(0))),
        (OTHER6, 8081, Protocol.TCP, "og0", str(layout.address6(0))),
    }


def _select(descriptor: int) -> list[int]:
    return select.select([descriptor], [], [], 0)[0]
