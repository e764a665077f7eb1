"""A driver dies at any moment; the next one adopts what is there, and nothing opens meanwhile."""

import socket
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from outgate.core.ranges import always_denied_networks
from outgate.dataplane import netns
from outgate.dataplane.conntrack import Conntrack
from outgate.dataplane.layout import choose_layout
from outgate.dataplane.links import Rtnetlink, create_devbox
from outgate.dataplane.linux import LinuxDriver, teardown_instance
from outgate.dataplane.nfnetlink import COMMENT_BYTES_MAX, Nfnetlink
from outgate.dataplane.pin_elements import Pin, add_pins
from outgate.dataplane.ruleset import RulesetOptions
from outgate.dataplane.sysctl import read_sysctl
from support.driver_world import ALLOWED4, ALLOWED6, OTHER4, World, cidr_plan, everything_plan, ip

pytestmark = [
    pytest.mark.kernel,
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PLAN = cidr_plan(16, ("45.45.46.0/24", 20, None, 1, 65535))


def add_pin(world: World, slot: int, address: str, *names: str) -> None:
    pin = Pin(world.layout.link(slot), ip_address(address), 60_000, names)
    with netns.entered(world.layout.router_namespace), Nfnetlink() as netfilter:
        netfilter.batch(add_pins([pin]))


def test_flows_and_pins_live_on_under_the_next_driver(world: World) -> None:
    world.driver().set(world.state(PLAN, boxes={0: 16, 1: 16}))
    server = world.far.listen(ALLOWED4)
    client = world.connect(0, ALLOWED4)
    accepted, _ = server.accept()
    add_pin(world, 0, OTHER4, "a.example.com", "b.example.com")
    add_pin(world, 1, ALLOWED6, "c.example.com")
    identity = netns.namespace_identity(world.box(0))

    driver = world.driver()
    driver.ensure_router()
    applied = driver.set(world.state(PLAN, boxes={0: 16}))

    assert applied.is_replaced
    assert applied.failures == {}
    client.sendall(b"still here")
    assert accepted.recv(100) == b"still here"
    assert netns.namespace_identity(world.box(0)) == identity
    (pin,) = driver.pins()
    assert (pin.link, str(pin.address), pin.names) == ("og0", OTHER4, ("a.example.com", "b.example.com"))
    assert 50_000 < pin.remaining_ms <= 60_000


def test_the_kernel_keeps_names_up_to_the_bound(world: World) -> None:
    world.driver().set(world.state(PLAN, boxes={0: 16}))
    names = ["a" * length for length in range(COMMENT_BYTES_MAX - 10, COMMENT_BYTES_MAX + 1)]
    for number, name in enumerate(names):
        add_pin(world, 0, f"45.45.48.{number}", name)
    kept = {int(str(pin.address).rpartition(".")[2]): pin.names for pin in world.driver().pins()}
    assert kept == {number: (name,) for number, name in enumerate(names)}


def test_pins_with_more_names_than_nft_takes_do_not_stop_the_next_driver(world: World) -> None:
    world.driver().set(world.state(PLAN, boxes={0: 16}))
    names = tuple(f"a-name-of-some-length-{number}.example.com" for number in range(20))
    add_pin(world, 0, OTHER4, *names)
    long = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 50))
    add_pin(world, 0, ALLOWED6, long)

    driver = world.driver()
    driver.ensure_router()
    assert driver.set(world.state(PLAN, boxes={0: 16})).failures == {}

    pins = {str(pin.address): pin for pin in driver.pins()}
    assert pins[OTHER4].names == names[: len(pins[OTHER4].names)] != ()
    assert pins[ALLOWED6].names == ()
    assert [pin for pin in pins.values() if not pin.has_more_names] == []


def test_between_ensure_router_and_set_everything_stays_as_it_was(world: World) -> None:
    world.driver().set(world.state(PLAN, boxes={0: 16}))
    server = world.far.listen(ALLOWED4)

    world.driver().ensure_router()

    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()
    world.refused_within_s(0, OTHER4)


def test_grants_that_ended_while_no_driver_ran_are_revoked(world: World) -> None:
    world.driver().set(world.state(PLAN, boxes={0: 16}))
    server = world.far.listen(ALLOWED4)
    client = world.connect(0, ALLOWED4)
    accepted, _ = server.accept()

    driver = world.driver()
    other = cidr_plan(16, ("45.45.47.0/24", 21, None, 1, 65535))
    applied = driver.set(world.state(other, boxes={0: 16}))

    assert applied.revoked_grants == {20}
    assert driver.abort_revoked(applied.revoked_grants, {"dbx_0"}) == 1
    with pytest.raises(ConnectionError):
        client.recv(10)
    with pytest.raises(ConnectionError):
        accepted.recv(10)


def test_a_devbox_that_moved_while_no_driver_ran_keeps_no_flow(world: World) -> None:
    plans = (PLAN, cidr_plan(17, ("45.45.47.0/24", 30, None, 1, 65535)))
    world.driver().set(world.state(*plans, boxes={0: 16, 1: 16}))
    server = world.far.listen(ALLOWED4)
    client = world.connect(0, ALLOWED4)
    accepted, _ = server.accept()

    world.driver().set(world.state(*plans, boxes={0: 17, 1: 16}))

    with world.far.tap() as tap:
        client.send(b"no longer allowed")
        assert tap.packets(lambda packet: b"no longer" in packet) == []
    with pytest.raises(ConnectionError):
        client.recv(10)
    accepted.close()


def test_a_link_that_was_never_finished_is_made_anew_and_was_closed(world: World) -> None:
    driver = world.driver()
    layout = driver.ensure_router()
    driver.set(world.state(everything_plan(16), boxes={1: 16}))
    box = world.devbox(0, 16)
    with netns.entered(layout.router_namespace):
        router = Rtnetlink()
    create_devbox(router, layout, box, 1500)
    ip("-n", layout.router_namespace, "link", "set", "og0", "alias", "")
    identity = netns.namespace_identity(world.box(0))
    with world.far.tap() as tap, netns.entered(world.box(0)):
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.sendto(b"too early", (OTHER4, 9000))
        assert tap.packets(lambda packet: b"too early" in packet) == []

    successor = world.driver()
    assert successor.set(world.state(everything_plan(16), boxes={0: 16, 1: 16})).failures == {}

    assert netns.namespace_identity(world.box(0)) != identity
    server = world.far.listen(OTHER4)
    world.connect(0, OTHER4).close()
    server.accept()[0].close()
    router.close()


def test_a_slots_next_devbox_inherits_nothing(world: World) -> None:
    driver = world.driver()
    plans = (PLAN, everything_plan(17))
    driver.set(world.state(*plans, boxes={0: 17, 1: 16}))
    server = world.far.listen(OTHER4)
    client = world.connect(0, OTHER4)
    accepted, _ = server.accept()
    local_port = client.getsockname()[1]
    add_pin(world, 0, OTHER4, "a.example.com")

    first = world.state(*plans, boxes={1: 16})
    driver.set(first)
    own = {world.layout.address4(0), world.layout.address6(0)}
    with netns.entered(world.layout.router_namespace), Conntrack() as table:
        assert not table.sources() & own
    with Conntrack() as table:
        assert not table.sources() & own
    again = world.devbox(0, 16, "dbx_second")
    driver.set(type(first)(first.plans, {**first.devboxes, "dbx_second": again}, first.host_addresses))

    assert driver.pins() == ()
    # The very packet that the first devbox's flow would send next.
    with netns.entered(world.box(0)):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with world.far.tap() as tap:
        raw.sendto(
            local_port.to_bytes(2, "big") + bytes.fromhex("01bb") + bytes(8) + b"\x50\x18" + bytes(6), (OTHER4, 0)
        )
        assert tap.packets(lambda packet: packet[16:20] == socket.inet_aton(OTHER4)) == []
    world.refused_within_s(0, OTHER4)
    accepted.close()


def test_a_slots_next_devbox_begins_with_its_own_count_of_flows_and_denials(world: World) -> None:
    flows_max = 40
    driver = world.driver(flows_max=flows_max)
    driver.set(world.state(PLAN, boxes={0: 16}))
    server = world.far.listen(ALLOWED4)
    held = [world.connect(0, ALLOWED4) for _ in range(flows_max)]
    world.refused_within_s(0, ALLOWED4)
    assert driver.denied_packets()["og0"] > 0

    driver.set(world.state(PLAN, boxes={}))
    assert "og0" not in driver.denied_packets()
    driver.set(world.state(PLAN, boxes={0: 16}))

    world.connect(0, ALLOWED4).close()
    assert len(held) == flows_max
    server.close()


def test_a_hundred_devboxes_leave_nothing_behind(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={}))
    before = leftovers(world)

    driver.set(world.state(PLAN, boxes=dict.fromkeys(range(100), 16)))
    assert len(netns.list_namespaces(f"{world.layout.router_namespace}-")) == 100
    driver.set(world.state(PLAN, boxes={}))

    assert leftovers(world) == before
    assert driver.observe_drift() == ()


def leftovers(world: World) -> list[str]:
    with netns.entered(world.layout.router_namespace):
        links = sorted(str(path) for path in Path("/proc/sys/net/ipv4/conf").iterdir())
        table = subprocess.run(["nft", "-s", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
        routes = subprocess.run(["ip", "route", "show", "table", "all"], check=True, capture_output=True, text=True)
    # The counter of a link that was used stays; it belongs to the slot and says nothing to the next devbox.
    kept = [line for line in table.splitlines() if "counter packets" not in line and '"og' not in line]
    return [*netns.list_namespaces(world.layout.router_namespace), *links, *kept, routes.stdout]


@pytest.mark.parametrize("knows_layout", [True, False], ids=["driver", "instance id alone"])
def test_teardown_leaves_nothing(world: World, knows_layout: bool) -> None:
    before = host_facts()
    world.driver().set(world.state(PLAN, boxes={0: 16, 1: 16}))
    assert host_facts() != before
    server = world.far.listen(ALLOWED4)
    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()

    if knows_layout:
        world.driver().teardown()
        with Conntrack() as table:
            assert table.sources() == frozenset()
    else:
        teardown_instance(world.layout.instance)

    assert host_facts() == before
    assert netns.list_namespaces(world.layout.router_namespace) == ()


def host_facts() -> list[str]:
    commands = (
        ["ip", "-br", "link"],
        ["ip", "route", "show", "table", "all"],
        ["ip", "-6", "route", "show", "table", "all"],
        ["nft", "list", "ruleset"],
    )
    texts = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in commands]
    names = ("ipv4/conf/eth0/forwarding", "ipv6/conf/eth0/force_forwarding", "ipv4/ip_forward")
    return [*texts, *(f"{name}={read_sysctl(name)}" for name in names)]


def test_instances_share_a_host(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    second = choose_layout(f"{int(world.layout.instance, 16) ^ 1:06x}", [world.layout.pool4])
    other = LinuxDriver(second, RulesetOptions(always_denied_networks()))
    other.ensure_router()
    try:
        table = subprocess.run(["nft", "list", "table", "inet", "outgate_uplink"], check=True, capture_output=True)
        assert world.layout.uplink_host.encode() in table.stdout
        assert second.uplink_host.encode() in table.stdout
    finally:
        other.teardown()
        other.close()

    assert driver.observe_drift() == ()
    server = world.far.listen(ALLOWED4)
    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()
    assert not Path(f"/proc/sys/net/ipv4/conf/{second.uplink_host}").exists()
