"""The host's side: which route is the uplink, what is switched on, and who else is in the way."""

import subprocess

import pytest

from outgate.dataplane import netns
from outgate.dataplane.layout import choose_layout
from outgate.dataplane.sysctl import read_sysctl
from outgate.dataplane.uplink import HostNetwork, missing_rule, observe_ipv6_obstacle
from support.driver_world import ALLOWED4, FAR4, FAR6, OTHER4, World, cidr_plan, ip, make_world

pytestmark = [
    pytest.mark.kernel,
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PLAN = cidr_plan(16, ("45.45.46.0/24", 20, None, 1, 65535))


def nft(commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=commands, text=True, check=True)


def test_the_default_route_with_the_lowest_metric_is_the_uplink(world: World) -> None:
    ip("link", "add", "extra0", "mtu", "1400", "type", "veth", "peer", "name", "extra1")
    ip("link", "set", "extra1", "up")
    ip("link", "set", "extra0", "up")
    ip("address", "add", "45.45.49.1/24", "dev", "extra0")
    host = HostNetwork()
    ip("route", "add", "default", "via", "45.45.49.2", "dev", "extra0", "metric", "50")
    assert host.observe_routes().interface4 == "eth0"
    ip("route", "replace", "default", "via", FAR4, "dev", "eth0", "metric", "100")
    ip("route", "del", "default", "metric", "0")
    routes = host.observe_routes()
    assert (routes.interface4, routes.interface6, routes.mtu) == ("extra0", "eth0", 1400)
    ip("route", "del", "default", "metric", "50")
    ip("route", "del", "default", "metric", "100")
    ip(
        "route",
        "add",
        "default",
        "nexthop",
        "via",
        FAR4,
        "dev",
        "eth0",
        "nexthop",
        "via",
        "45.45.49.2",
        "dev",
        "extra0",
    )
    assert host.observe_routes().interface4 == "eth0"
    host.close()


def test_the_pool_avoids_the_hosts_networks(world: World) -> None:
    ip("address", "add", "10.213.0.1/17", "dev", "eth0")
    host = HostNetwork()
    used = host.observe_networks(own_link="ogu000000")
    host.close()
    assert not choose_layout("000000", used).pool4.overlaps(next(n for n in used if str(n) == "10.213.0.0/17"))


def test_forwarding_is_on_for_the_uplink_alone(world: World) -> None:
    world.driver().ensure_router()
    link = world.layout.uplink_host
    assert read_sysctl("ipv4/ip_forward") == "0"
    assert read_sysctl("ipv6/conf/all/forwarding") == "0"
    assert [read_sysctl(f"ipv4/conf/{name}/forwarding") for name in (link, "eth0", "lo")] == ["1", "1", "0"]


def test_without_an_ipv6_default_route_devboxes_have_no_ipv6() -> None:
    with make_world(has_ipv6=False) as world:
        driver = world.driver()
        layout = driver.ensure_router()
        driver.set(world.state(PLAN, boxes={0: 16}))

        host = HostNetwork()
        assert observe_ipv6_obstacle(host.observe_routes()) is not None
        host.close()
        assert not layout.has_ipv6
        with netns.entered(world.box(0)):
            shown = subprocess.run(["ip", "-6", "address", "show", "dev", "eth0"], check=True, capture_output=True)
        assert shown.stdout == b""
        server = world.far.listen(ALLOWED4)
        world.connect(0, ALLOWED4).close()
        server.accept()[0].close()
        assert driver.observe_drift() == ()


def test_a_host_that_loses_its_ipv6_keeps_the_drivers_devboxes_as_they_are(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    ip("route", "del", "default", "via", FAR6)

    assert driver.ensure_router().has_ipv6
    assert driver.set(world.state(PLAN, boxes={0: 16})).failures == {}


def test_without_any_default_route_the_host_is_told(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    ip("route", "del", "default")
    ip("route", "del", "default", "via", FAR6)

    assert driver.observe_obstacles() == ("The host has no default route, so nothing can leave it.",)
    assert driver.observe_drift() == ()


def test_a_foreign_chain_that_drops_is_named_with_the_missing_rule(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    server = world.far.listen(ALLOWED4)
    nft("table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }")
    host = HostNetwork()
    link = world.layout.uplink_host
    with pytest.raises(TimeoutError):
        world.connect(0, ALLOWED4, timeout_s=0.3)

    (drop,) = host.observe_foreign_drops(link)
    assert (drop.family, drop.table, drop.chain) == ("ip", "filter", "FORWARD")
    sentence = missing_rule(drop, link)
    assert driver.observe_obstacles() == (sentence,)
    assert driver.observe_drift() == ()
    _, *commands = sentence.removesuffix(".").replace(": nft", "; nft").split("; ")
    for command in commands:
        subprocess.run(command.split(), check=True)

    assert host.observe_foreign_drops(link) == ()
    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()
    host.close()


def test_a_foreign_table_is_never_touched(world: World) -> None:
    nft("table inet mine { chain c { type filter hook forward priority 5; policy accept; counter; }; }")
    before = subprocess.run(["nft", "-s", "list", "table", "inet", "mine"], check=True, capture_output=True).stdout

    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    world.refused_within_s(0, OTHER4)
    driver.teardown()

    assert (
        subprocess.run(["nft", "-s", "list", "table", "inet", "mine"], check=True, capture_output=True).stdout == before
    )
