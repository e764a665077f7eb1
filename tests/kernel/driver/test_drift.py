"""Whatever is changed behind the driver's back is told, and the next ``set`` repairs it."""

import contextlib
import shlex
import subprocess

import pytest

from outgate.dataplane import netns
from support.driver_world import ALLOWED4, OTHER4, World, cidr_plan

pytestmark = [
    pytest.mark.kernel,
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PLAN = cidr_plan(16, ("45.45.46.0/24", 20, None, 1, 65535))

ROUTER_DAMAGE = {
    "table deleted": "nft delete table inet outgate",
    "rules deleted": "nft flush chain inet outgate judge",
    "rule added": "nft insert rule inet outgate forward accept",
    "policy chain changed": "nft insert rule inet outgate policy_16 accept",
    "chain added": "nft add chain inet outgate extra '{ type filter hook forward priority -200; policy accept; }'",
    "grant added": "nft add element inet outgate live '{ 0x63 }'",
    "grant deleted": "nft delete element inet outgate live '{ 0x14 }'",
    "cell added": "nft add element inet outgate cidr_16 '{ 45.45.47.0/24 . tcp . 1-65535 : 0x14 }'",
    "floor emptied": "nft flush set inet outgate floor4",
    "source added": "nft add element inet outgate source4 '{ og0 . 45.45.46.9 }'",
    "devbox policy deleted": "nft delete element inet outgate devbox_policy '{ og0 }'",
    "relay rule deleted": "ip rule del fwmark 1",
    "relay rule of IPv6 deleted": "ip -6 rule del fwmark 1",
    "relay route deleted": "ip route flush table 100",
    "default route deleted": "ip route del default",
    "route of a devbox deleted": "ip route del {address4}",
    "neighbour deleted": "ip neigh del {address4} dev og0",
    "link down": "ip link set og0 down",
    "link deleted": "ip link del og0",
    "gateway deleted": "ip address del {gateway4}/32 dev lo",
    "rp_filter on": "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "forwarding off": "sysctl -qw net.ipv4.ip_forward=0",
}
HOST_DAMAGE = {
    "uplink table deleted": "nft delete table inet outgate_uplink",
    "masquerading deleted": "nft flush chain inet outgate_uplink postrouting",
    "uplink gone": "ip link del {uplink}",
    "uplink down": "ip link set {uplink} down",
    "pool route deleted": "ip route del {pool4}",
    "forwarding off": "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
    "everything of the router gone": "ip netns del {router}",
}


@pytest.mark.parametrize("what", ROUTER_DAMAGE)
def test_damage_in_the_router_namespace(world: World, what: str) -> None:
    check(world, ROUTER_DAMAGE[what], world.layout.router_namespace)


@pytest.mark.parametrize("what", HOST_DAMAGE)
def test_damage_on_the_host(world: World, what: str) -> None:
    check(world, HOST_DAMAGE[what], None)


def run(command: str, namespace: str | None) -> None:
    with contextlib.ExitStack() as stack:
        if namespace is not None:
            stack.enter_context(netns.entered(namespace))
        subprocess.run(shlex.split(command), check=True)


def check(world: World, command: str, namespace: str | None) -> None:
    driver = world.driver()
    state = world.state(PLAN, boxes={0: 16})
    driver.set(state)
    assert driver.observe_drift() == ()
    layout = world.layout
    filled = command
    for name, value in (
        ("{address4}", layout.address4(0)),
        ("{gateway4}", layout.gateway4),
        ("{uplink}", layout.uplink_host),
        ("{pool4}", layout.pool4),
        ("{router}", layout.router_namespace),
    ):
        filled = filled.replace(name, str(value))
    run(filled, namespace)

    sentences = driver.observe_drift()

    assert sentences != ()
    assert all(sentence.endswith(".") for sentence in sentences)
    assert driver.set(state).is_replaced
    assert driver.observe_drift() == ()
    server = world.far.listen(ALLOWED4)
    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()
    world.refused_within_s(0, OTHER4)


def test_pins_and_counters_are_no_drift(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    world.refused_within_s(0, OTHER4)
    command = "nft add element inet outgate pins4 '{ og0 . 45.45.46.9 timeout 60s }'"
    run(command, world.layout.router_namespace)

    assert driver.observe_drift() == ()


def test_an_update_over_damage_repairs_it_too(world: World) -> None:
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    run("nft delete element inet outgate live '{ 0x14 }'", world.layout.router_namespace)

    applied = driver.set(world.state(cidr_plan(16, ("45.45.47.0/24", 21, None, 1, 65535)), boxes={0: 16}))

    assert applied.is_replaced
    assert applied.revoked_grants == {20}
    assert driver.observe_drift() == ()
