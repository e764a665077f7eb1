"""Whatever is changed behind the driver's back is told, and the next ``set`` repairs it."""

import contextlib
import shlex
import subprocess
from ipaddress import ip_address

import pytest

from outgate.dataplane import netns
from support.driver_world import ALLOWED4, ALLOWED6, OTHER4, OTHER6, World, cidr_plan

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
    "special addresses emptied": "nft flush set inet outgate special6",
    "source added": "nft add element inet outgate source4 '{ og0 . 45.45.46.9 }'",
    "devbox policy deleted": "nft delete element inet outgate devbox_policy '{ og0 }'",
    "relay rule deleted": "ip rule del fwmark 1",
    "relay rule of IPv6 deleted": "ip -6 rule del fwmark 1",
    "relay route deleted": "ip route flush table 100",
    "default route deleted": "ip route del default table 101",
    "default route of IPv6 deleted": "ip -6 route del default table 101",
    "default route for unmarked packets": "ip route add default dev uplink",
    "rule for forwarding deleted": "ip rule del fwmark 2",
    "rule of IPv6 for forwarding deleted": "ip -6 rule del fwmark 2",
    "rule for the relay's own packets deleted": "ip rule del iif lo priority 40000",
    "routing rule added": "ip rule add priority 50 lookup 77",
    "routing rule of IPv6 added": "ip -6 rule add priority 50 lookup 77",
    "route added": "ip route add 45.45.47.0/24 dev uplink",
    "route of IPv6 added": "ip -6 route add 2a0f:4444:2::/64 dev uplink",
    "route changed": "ip route change {address4} dev uplink",
    "local route added": "ip route add local 45.45.46.1 dev lo table local",
    "pool route deleted": "ip route del unreachable {pool4}",
    "address added": "ip address add 45.45.46.1/32 dev lo",
    "address added to a link": "ip address add 45.45.46.1/32 dev og0",
    "address of IPv6 added": "ip address add 2a0f:4444:1::1/128 dev lo nodad",
    "address of a link deleted": "ip address del fe80::1/64 dev og0",
    "address of the uplink deleted": "ip address flush dev uplink",
    "grant of a cell changed": "nft 'delete element inet outgate cidr_16 { 45.45.46.0/24 . tcp . 1-65535 } ; "
    "add element inet outgate cidr_16 { 45.45.46.0/24 . tcp . 1-65535 : 0x15 }'",
    "cell deleted": "nft delete element inet outgate cidr_16 '{ 45.45.46.0/24 . udp . 1-65535 }'",
    "cell of other protocols deleted": "nft delete element inet outgate net_16 '{ 45.45.46.0/24 . 0-255 }'",
    "devbox policy changed": "nft 'delete element inet outgate devbox_policy { og0 } ; "
    "add element inet outgate devbox_policy { og0 : accept }'",
    "devbox policy added": "nft add element inet outgate devbox_policy '{ og7 : accept }'",
    "source deleted": "nft delete element inet outgate source4 '{ og0 . {address4} }'",
    "host address deleted": "nft flush set inet outgate host4",
    "set added": "nft add set inet outgate extra '{ type ipv4_addr; }'",
    "policy of a chain changed": "nft add chain inet outgate forward '{ policy accept; }'",
    "policy chain emptied": "nft flush chain inet outgate policy_16",
    "ruleset flushed": "nft flush ruleset",
    "table flushed": "nft flush table inet outgate",
    "table of somebody else's": "nft 'add table inet foreign ; add chain inet foreign c "
    "{ type filter hook forward priority -5; policy accept; } ; add rule inet foreign c ct mark set 0x14'",
    "route of a devbox deleted": "ip route del {address4}",
    "neighbour deleted": "ip neigh del {address4} dev og0",
    "link down": "ip link set og0 down",
    "link deleted": "ip link del og0",
    "gateway deleted": "ip address del {gateway4}/32 dev lo",
    "marks kept from packets": "sysctl -qw net.ipv4.conf.all.src_valid_mark=1",
    "redirects accepted": "sysctl -qw net.ipv4.conf.all.accept_redirects=1",
    "checksums unchecked": "sysctl -qw net.netfilter.nf_conntrack_checksum=0",
    "forwarding of IPv6 off": "sysctl -qw net.ipv6.conf.all.forwarding=0",
    "rp_filter on": "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    "forwarding off": "sysctl -qw net.ipv4.ip_forward=0",
}
HOST_DAMAGE = {
    "uplink table deleted": "nft delete table inet outgate_uplink",
    "uplink's input opened": "nft insert rule inet outgate_uplink input accept",
    "uplink taken out of its set": "nft flush set inet outgate_uplink links",
    "address of the uplink deleted": "ip address flush dev {uplink}",
    "neighbour of the uplink deleted": "ip neigh flush dev {uplink} nud permanent",
    "forwarding of IPv6 off": "sysctl -qw net.ipv6.conf.eth0.force_forwarding=0",
    "pool route of IPv6 deleted": "ip -6 route del {pool6}",
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
        ("{pool6}", layout.pool6),
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


def test_a_kernel_without_ipv6_is_no_damage(world: World) -> None:
    """It gives the loopback device no ::1."""
    driver = world.driver()
    state = world.state(PLAN, boxes={0: 16})
    driver.set(state)
    run("ip address del ::1/128 dev lo", world.layout.router_namespace)
    assert driver.observe_drift() == ()
    run("ip address add ::1/128 dev lo nodad", world.layout.router_namespace)
    assert driver.observe_drift() == ()


@pytest.mark.parametrize("deed", ["delete table inet outgate", "flush ruleset"])
def test_without_the_table_nothing_leaves_until_it_is_repaired(world: World, deed: str) -> None:
    """The table marks what may be forwarded, and unmarked packets find no route: a flush closes instead of opening."""
    driver = world.driver()
    state = world.state(PLAN, boxes={0: 16})
    driver.set(state)
    server = world.far.listen(ALLOWED4)
    held = world.connect(0, ALLOWED4)
    accepted, _ = server.accept()
    accepted.settimeout(10)
    run(f"nft {deed}", world.layout.router_namespace)

    with world.far.tap() as tap:
        for address in (ALLOWED4, OTHER4, ALLOWED6, OTHER6):
            with contextlib.suppress(OSError):  # refused at once
                world.udp(0, address, 9000)
            with contextlib.suppress(OSError):
                world.connect(0, address, timeout_s=0.2).close()
        arrived = tap.packets(lambda packet: is_to(packet, ALLOWED4, OTHER4, ALLOWED6, OTHER6))
    assert driver.observe_drift() != ()
    driver.set(state)

    assert arrived == []
    held.sendall(b"still here")
    assert accepted.recv(100) == b"still here", "a flow that a rule allows outlives the damage"
    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()
    with world.far.tap() as tap:
        world.udp(0, ALLOWED4, 9000)
        assert tap.packets(lambda packet: is_to(packet, ALLOWED4)), "the control"


def is_to(packet: bytes, *addresses: str) -> bool:
    destination = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
    return destination in {ip_address(address).packed for address in addresses}


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
