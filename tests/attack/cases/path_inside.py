"""What a box could change of its own network, and what it learns of its neighbourhood from the kernel."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.forging import EVERYTHING
from attack.paths import run, what_everything_opens, what_rules_open
from attack.scene import Ability, Scene
from outgate.cli.demo.namespaces import HOST_ADDRESS4, HOST_ADDRESS6, WIRE

_NEEDS = (Ability.ADDRESS_RULES,)


@case(
    Group.PATH,
    control=what_rules_open,
    needs=_NEEDS,
    closed_in_the_open="It needs a right over the network that no box has, this one neither.",
)
def a_box_changes_nothing_of_its_own_network(scene: Scene) -> Iterator[str]:
    """Addresses, routes, neighbours, rules, links, tunnels, namespaces and settings, by ip, nft and the files of /proc.

    With CAP_NET_ADMIN, which "just for ping" and VPN images ask for, a container is whoever it wants on its network.
    """
    told = run(
        scene,
        """
        import subprocess
        attempts = (
            "ip address add 45.45.45.99/32 dev eth0", "ip address add 2a0f:4444:9::9/128 dev eth0 nodad",
            "ip route add 45.45.45.20/32 dev eth0", "ip -6 route add 2a0f:4444::20/128 dev eth0",
            "ip route add local 45.45.45.20/32 dev lo", "ip rule add pref 1 lookup 200",
            "ip neighbour replace 45.45.45.20 lladdr 02:00:00:00:00:01 dev eth0", "ip link set eth0 down",
            "ip link set eth0 address 02:00:00:00:00:01", "ip link set eth0 mtu 9000", "ip link set eth0 promisc on",
            "ip link set eth0 netns 1", "ip link add dummy9 type dummy", "ip link add link eth0 name eth0.5 type vlan id 5",
            "ip tunnel add t9 mode ipip remote 45.45.45.20", "ip link add v9 type veth peer name v8",
            "ip netns add other", "unshare --net true", "unshare --user --net true", "nft add table inet mine",
            "sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv4.conf.all.accept_source_route=1",
            "sysctl -w net.ipv6.conf.all.accept_ra=2", "sysctl -w net.ipv4.ip_nonlocal_bind=1", "tc qdisc add dev eth0 root fq",
        )
        for attempt in attempts:
            try:
                done = subprocess.run(attempt.split(), capture_output=True, timeout=10)
            except OSError:
                continue
            # unshare is no change by itself; what matters is a network that can be changed in the box's own.
            if done.returncode == 0 and not attempt.startswith("unshare --user"):
                print(attempt)
        """,
    )
    yield from told.splitlines()


@case(
    Group.PATH,
    control=what_everything_opens,
    needs=(*_NEEDS, Ability.EVERYTHING),
    closed_in_the_open="A network namespace of its own shows only what is in it.",
)
def the_kernel_tells_nothing_of_the_host(scene: Scene) -> Iterator[str]:
    """/proc/net, /sys/class/net, netlink dumps and ioctls: interfaces, addresses, sockets and flows of others.

    Connection tracking's list names everybody's peers, and the neighbour table the machines next door.
    """
    told = run(
        scene,
        f"""
        import glob
        seen = b""
        for path in sorted(glob.glob("/proc/net/*") + glob.glob("/proc/self/net/stat/*") + glob.glob("/sys/class/net/*")):
            seen += path.encode() + b"\\n"
            with contextlib.suppress(OSError):
                with open(path, "rb") as file:
                    seen += file.read(1 << 20)
        RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH, RTM_GETRULE, RTM_GETNSID = 18, 22, 26, 30, 34, 90
        for kind in (RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETNEIGH, RTM_GETRULE, RTM_GETNSID):
            for family in (0, socket.AF_INET, socket.AF_INET6):
                with refused(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asking:
                    # A dump is there when it has been asked for; behind its end there is nothing to wait for.
                    asking.setblocking(False)
                    asking.send(struct.pack("=IHHII", 20, kind, 0x301, 1, 0) + bytes([family, 0, 0, 0]))
                    while True:
                        seen += asking.recv(1 << 16)
        for other in (4, 9, 12, 16):
            with refused(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, other) as asking:
                asking.settimeout(0.2)
                asking.send(struct.pack("=IHHII", 20, 20, 0x301, 1, 0) + bytes([2, 6, 0, 0]))
                seen += asking.recv(1 << 16)
        address4, address6 = socket.inet_aton("{HOST_ADDRESS4}"), socket.inet_pton(socket.AF_INET6, "{HOST_ADDRESS6}")
        for what, needle in (
            ("the host's address", address4), ("the host's address, as text", b"{HOST_ADDRESS4}"),
            ("the host's address, as /proc writes it", address4[::-1].hex().upper().encode()),
            ("the host's IPv6 address", address6), ("the same as text", address6.hex().encode()),
            ("the host's interface", b"{WIRE}"),
        ):
            if needle in seen:
                print(what)
        """,
        rules=EVERYTHING,
    )
    yield from told.splitlines()
