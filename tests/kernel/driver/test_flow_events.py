"""Flows under a grant, as the kernel tells of them: held against what the far side got."""

import os
import socket
import struct
import time
from collections.abc import Callable

import pytest

from outgate.dataplane import netns
from outgate.dataplane.conntrack_events import FlowBegan, FlowEnded, FlowEvent, FlowEventReader
from outgate.dataplane.sysctl import write_sysctl
from outgate.model.addresses import Protocol
from outgate.model.plan import MARK_RESET_SENT, grant_of_allow_all
from support.driver_world import (
    ACCEPT_TIMEOUT_S,
    ALLOWED4,
    ALLOWED6,
    FAR4,
    OTHER4,
    World,
    cidr_plan,
    everything_plan,
)

pytestmark = pytest.mark.kernel

ALLOWED_NET = "45.45.46.0/24"
IPV4, IPV6, UDP_HEAD, ICMP_HEAD = 20, 40, 8, 8
PORT = 5353


def read_until(reader: FlowEventReader, condition: Callable[[list[FlowEvent]], bool]) -> list[FlowEvent]:
    """Everything told until ``condition`` holds."""
    events: list[FlowEvent] = []
    end = time.monotonic() + 30
    while not condition(events):
        assert time.monotonic() < end, f"it was never told; told were {events}"
        found, _ = reader.read()
        events += found
        time.sleep(0.01)
    return events


def ends_of(events: list[FlowEvent]) -> list[FlowEnded]:
    return [event for event in events if isinstance(event, FlowEnded)]


def exchange_tcp(world: World, slot: int, address: str, out: int, back: int) -> None:
    """A connection on which the far side gets ``out`` bytes and sends ``back``, closed by both."""
    server = world.far.listen(address)
    client = world.connect(slot, address)
    accepted, _ = server.accept()
    accepted.settimeout(ACCEPT_TIMEOUT_S)
    for end, other, size in ((client, accepted, out), (accepted, client, back)):
        left = size
        while left:
            end.sendall(bytes(min(left, 16384)))
            got = 0
            while got < min(left, 16384):
                got += len(other.recv(16384))
            left -= got
    for each in (client, accepted, server):
        each.close()


def exchange_udp(world: World, slot: int, address: str, sizes: tuple[int, ...]) -> int:
    """Datagrams out, each answered by its first half; how many bytes of payload the far side got."""
    receiver = world.far.datagrams(address, PORT)
    sender = world.udp(slot, address, PORT, bytes(sizes[0]))
    received = 0
    for size in (*sizes[1:], 0):
        data, source = receiver.recvfrom(4096)
        received += len(data)
        receiver.sendto(data[: len(data) // 2], source)
        assert len(sender.recv(4096)) == len(data) // 2
        if size:
            sender.send(bytes(size))
    sender.close()
    receiver.close()
    return received


def ping(world: World, slot: int, address: str, size: int) -> None:
    """One echo request with ``size`` bytes, answered by the far side's kernel."""
    with netns.entered(world.box(slot)):
        pinger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    pinger.settimeout(ACCEPT_TIMEOUT_S)
    pinger.sendto(struct.pack(">BBHHH", 8, 0, 0, 0, 1) + bytes(size), (address, 0))
    assert len(pinger.recv(4096)) >= size
    pinger.close()


def test_bytes_are_those_that_the_far_side_got_and_sent(world: World) -> None:
    driver = world.driver()
    plans = cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), everything_plan(17)
    driver.set(world.state(*plans, boxes={0: 16, 1: 17}))
    reader = driver.flow_events()
    began_ms = time.time_ns() // 1_000_000
    out, back = 200_000, 50_000
    sizes = (100, 1000, 37)

    exchange_tcp(world, 0, ALLOWED4, out, back)
    exchange_tcp(world, 1, ALLOWED6, out, back)
    assert exchange_udp(world, 0, ALLOWED4, sizes) == exchange_udp(world, 1, ALLOWED6, sizes) == sum(sizes)
    ping(world, 0, ALLOWED4, 64)
    # With its devbox, everything of it is forgotten.
    driver.set(world.state(*plans, boxes={}))
    events = read_until(reader, lambda seen: len(ends_of(seen)) == 5)

    told: dict[tuple[int, int], FlowEnded] = {
        (event.flow.protocol, event.flow.source.version): event for event in ends_of(events)
    }
    begun = {(event.flow.protocol, event.flow.source.version) for event in events if isinstance(event, FlowBegan)}
    assert len(events) == 10
    assert begun == told.keys() == {(6, 4), (6, 6), (17, 4), (17, 6), (1, 4)}
    answered = sum(size // 2 for size in sizes)
    for version, head in ((4, IPV4), (6, IPV6)):
        udp, tcp = told[17, version], told[6, version]
        assert udp.bytes_out == sum(sizes) + len(sizes) * (head + UDP_HEAD)
        assert udp.bytes_in == answered + len(sizes) * (head + UDP_HEAD)
        # Headers and bare acknowledgements come on top: a few per segment.
        assert out <= tcp.bytes_out <= out * 1.3
        assert back <= tcp.bytes_in <= back * 2
        assert tcp.is_closed
        assert not udp.is_closed
        assert udp.flow.destination_port == PORT
        slot = 0 if version == 4 else 1
        source = world.layout.address4(slot) if version == 4 else world.layout.address6(slot)
        assert udp.flow.source == source
        assert udp.flow.mark == (20 if version == 4 else grant_of_allow_all(17))
    icmp = told[1, 4]
    assert icmp.bytes_out == icmp.bytes_in == 64 + ICMP_HEAD + IPV4
    assert icmp.flow.destination_port == 0
    for event in told.values():
        assert began_ms <= event.began_ms <= time.time_ns() // 1_000_000
        assert event.is_cut
    assert (reader.events, reader.dropped) == (10, 0)
    reader.close()


def test_only_flows_under_a_grant_are_told(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    reader = driver.flow_events()

    world.refused_within_s(0, OTHER4)
    world.udp(0, str(world.layout.gateway4), 53).close()
    world.udp(0, OTHER4, 53).close()
    with netns.entered(world.layout.router_namespace):
        upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    upstream.sendto(b"the gate's own", (FAR4, 53))
    upstream.close()
    world.udp(0, ALLOWED4, PORT).close()
    # Events come in order: whatever is told of those before is told before.
    (event,) = read_until(reader, bool)

    assert (event.flow.destination_port, event.flow.mark) == (PORT, 20)
    driver.set(world.state(boxes={}))
    events = read_until(reader, lambda seen: bool(ends_of(seen)))
    assert [each.flow.destination_port for each in events] == [PORT]
    reader.close()


def test_a_flow_that_began_while_nobody_listened_is_told_when_it_ends(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    driver.flow_events().close()
    before_ms = time.time_ns() // 1_000_000
    exchange_udp(world, 0, ALLOWED4, (100,))
    after_ms = time.time_ns() // 1_000_000
    driver.close()

    later = world.driver()
    later.ensure_router()
    reader = later.flow_events()
    # It knows no devbox, and forgets the flows of addresses that none has.
    later.set(world.state(boxes={}))
    (event,) = ends_of(read_until(reader, lambda seen: bool(ends_of(seen))))

    assert before_ms <= event.began_ms <= after_ms
    assert event.bytes_out == 100 + UDP_HEAD + IPV4
    reader.close()


def test_a_revoked_flow_ends_as_revoked(world: World) -> None:
    driver = world.driver()
    boxes = {0: 16}
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, Protocol.TCP, 1, 65535)), boxes=boxes))
    reader = driver.flow_events()
    server = world.far.listen(ALLOWED4)
    client = world.connect(0, ALLOWED4)
    accepted, _ = server.accept()

    applied = driver.set(world.state(cidr_plan(16, (OTHER4 + "/32", 21, Protocol.TCP, 1, 65535)), boxes=boxes))
    assert driver.abort_revoked(applied.revoked_grants, {"dbx_0"}) == 1
    accepted.settimeout(ACCEPT_TIMEOUT_S)
    with pytest.raises(ConnectionResetError):
        accepted.recv(1)
    driver.set(world.state(boxes={}))
    (event,) = ends_of(read_until(reader, lambda seen: bool(ends_of(seen))))

    assert event.flow.mark == MARK_RESET_SENT
    assert not event.is_closed
    for each in (client, accepted, server, reader):
        each.close()


def test_what_overflows_is_counted_to_the_last_event_and_the_reader_goes_on(world: World) -> None:
    flood = 2_000
    driver = world.driver()
    driver.set(world.state(cidr_plan(16, (ALLOWED_NET, 20, None, 1, 65535)), boxes={0: 16}))
    with netns.entered(world.layout.router_namespace):
        write_sysctl("netfilter/nf_conntrack_udp_timeout", "600")  # none ends before it is counted
    reader = driver.flow_events()
    # As it is made the buffer takes more than 10,000 events, and so many flows take a slow machine a minute.
    with socket.socket(fileno=os.dup(reader.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    with netns.entered(world.box(0)):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in range(1024, 1024 + flood):
        sender.sendto(b"x", (ALLOWED4, port))

    has_more = True
    while has_more:
        events, has_more = reader.read()
        assert len(events) <= 64
    assert reader.dropped > 0, "the buffer took all of it, and this test shows nothing"
    assert reader.events + reader.dropped == flood

    sender.sendto(b"x", ("45.45.46.2", PORT))
    (event,) = read_until(reader, bool)
    assert str(event.flow.destination) == "45.45.46.2"
    assert reader.events + reader.dropped == flood + 1
    sender.close()
    reader.close()


def test_settings_that_the_records_need_are_set_and_kept(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(boxes={}))
    for name in ("acct", "timestamp", "events"):
        with netns.entered(world.layout.router_namespace):
            write_sysctl(f"netfilter/nf_conntrack_{name}", "0")
        assert driver.observe_drift() == (f"net/netfilter/nf_conntrack_{name} of the router namespace is not 1.",)
        driver.set(world.state(boxes={}))
        assert driver.observe_drift() == ()
