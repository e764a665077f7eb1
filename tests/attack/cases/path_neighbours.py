"""Who is near: the machine that runs the boxes, its gateway, the other boxes."""

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from attack.case import Group, case
from attack.forging import EVERYTHING, RULES
from attack.paths import run, what_everything_opens
from attack.scene import Ability, Scene
from attack.witness import new_token
from outgate.dataplane.netns import entered

_NEEDS = (Ability.ADDRESS_RULES, Ability.EVERYTHING)

_PORTS = range(20_100, 20_200)
"""Below those that the kernel gives to clients: one of them may be taken for one protocol and free for the other."""

_BOX_PORT = 20_007


@contextmanager
def _listening_host(scene: Scene) -> Iterator[tuple[list[str], int, list[socket.socket]]]:
    """Addresses of the host (broadcast ones too), a port on which it listens at all of them, and the listeners."""
    with ExitStack() as stack, entered(scene.internet.namespaces.host):
        for port in _PORTS:
            with suppress(OSError), ExitStack() as tried:
                listeners = [tried.enter_context(made) for made in _listen_at(port)]
                stack.push(tried.pop_all())
                break
        yield _addresses_here(), port, listeners


def _listen_at(port: int) -> Iterator[socket.socket]:
    """TCP over both families, then UDP over IPv4 and over IPv6."""
    yield socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    for family, everywhere in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        datagrams.bind((everywhere, port))
        yield datagrams


def _addresses_here() -> list[str]:
    shown = subprocess.run(("ip", "-json", "address"), check=True, capture_output=True, text=True, timeout=30).stdout
    entries = [entry for link in json.loads(shown) for entry in link["addr_info"]]
    found = [entry["local"] for entry in entries if entry["scope"] != "link"]
    return found + [entry["broadcast"] for entry in entries if "broadcast" in entry]


def _heard(listeners: Sequence[socket.socket]) -> Iterator[str]:
    """Who connected, and who sent."""
    for listener in listeners:
        listener.setblocking(False)
        with suppress(BlockingIOError):
            if listener.type == socket.SOCK_DGRAM:
                _, peer = listener.recvfrom(65536)
                yield f"a datagram from {peer[0]}"
            else:
                accepted, peer = listener.accept()
                accepted.close()
                yield f"a connection from {peer[0]}"


@case(Group.PATH, control=what_everything_opens, needs=_NEEDS)
def the_host_is_not_reached_at_any_of_its_addresses(scene: Scene) -> Iterator[str]:
    """What listens on 0.0.0.0 or :: of the host, asked for at the address of every interface, loopback and broadcasts.

    Filters in the forward hook do not see what the host keeps for itself. Docker's published ports and kube-proxy's
    localhost services (CVE-2020-8558) were reached this way.
    """
    with _listening_host(scene) as (addresses, port, listeners):
        forms = [f"::ffff:{a}" for a in addresses if ":" not in a]
        places = (*addresses, *forms, "0.0.0.0", "::", "127.0.0.1", "::1")
        run(scene, f"fire(targets((TCP, UDP), {places}, ({port},)))", rules=EVERYTHING)
        yield from _heard(listeners)


@case(Group.PATH, control=what_everything_opens, needs=_NEEDS)
def the_gateway_has_nothing_to_say_but_dns(scene: Scene) -> Iterator[str]:
    """Services at the address that every box knows: its gateway. Consoles, APIs and proxies are found there.

    Docker's bridge address and Kubernetes' node address reach whatever the host serves to "its own" network.
    """
    with _listening_host(scene) as (_, port, _listeners):
        answered = run(
            scene,
            f"""
            with open("/proc/net/route") as routes:
                hexadecimal = [line.split()[2] for line in routes if line.split()[1] == "00000000"][0]
            gateway = socket.inet_ntoa(struct.pack("=I", int(hexadecimal, 16)))
            with open("/etc/resolv.conf") as servers:
                named = [line.split()[1] for line in servers if line.startswith("nameserver")]
            ports = (*range(1, 53), *range(54, 130), 443, 853, 2375, 5432, 6443, 8080, 15001, 18080, {port})
            for kind, address, there in fire(targets((TCP, UDP), (gateway, "fe80::1%eth0", *named), ports), wait_s=2):
                print(kind, address, there)
            """,
            rules=EVERYTHING,
        )
        # Where a box's name server is one out on the internet, it is no gateway, and what answers there is its own.
        yield from (line for line in answered.splitlines() if line.split()[1] != scene.internet.resolver)


_LISTEN = """
from motion_kit import daemonise
def bind_in_time(made, address):
    # The listener of the case before may still be on its way out.
    end_s = time.monotonic() + 20
    while True:
        try:
            return made.bind((address, BOX_PORT))
        except OSError:
            if time.monotonic() > end_s:
                raise
        time.sleep(0.05)
listeners = []
for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        made = socket.socket(family, kind)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bind_in_time(made, any_address)
        if kind == socket.SOCK_STREAM:
            made.listen()
        listeners.append(made)
with open("/proc/net/if_inet6") as lines:
    for line in lines:
        packed, *_, interface = line.split()
        if interface != "lo":
            print(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed)) + ("%eth0" if packed.startswith("fe80") else ""))
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.connect(("45.45.45.10", 9))
print(probe.getsockname()[0], flush=True)
open(LOG, "w").close()
daemonise()
selector = selectors.DefaultSelector()
for made in listeners:
    selector.register(made, selectors.EVENT_READ)
end_s = time.monotonic() + 30
while time.monotonic() < end_s and not os.path.exists(LOG + ".end"):
    for key, _ in selector.select(0.1):
        made = key.fileobj
        peer = made.accept()[1] if made.type == socket.SOCK_STREAM else made.recvfrom(65536)[1]
        with open(LOG, "a") as log:
            log.write(peer[0] + "\\n")
"""


@contextmanager
def _listening_box(scene: Scene) -> Iterator[tuple[list[str], str]]:
    """The addresses of another box, which listens on all of them, and the file in which it keeps its visitors."""
    log = f"/tmp/visitors-{new_token()}"
    addresses = run(scene, f"import selectors\nLOG, BOX_PORT = {log!r}, {_BOX_PORT}\n{_LISTEN}").split()
    try:
        yield addresses, log
    finally:
        run(scene, f"open({log + '.end'!r}, 'w').close()")


def a_listening_box_hears_itself(scene: Scene) -> bool:
    """The twin of reaching another box: one that reaches itself is heard, over TCP and UDP, both families."""
    with _listening_box(scene) as (addresses, log):
        told = run(
            scene,
            f"""
            fire(targets((TCP, UDP), {addresses}, ({_BOX_PORT},)))
            for _ in range(100):
                with open({log!r}) as visitors:
                    told = visitors.read()
                if len(told.split()) >= 2 * {len(addresses)}:
                    break
                time.sleep(0.05)
            print(told)
            """,
        )
        return len(told.split()) == 2 * len(addresses) and len(addresses) >= 2


@case(Group.PATH, control=a_listening_box_hears_itself, needs=(*_NEEDS, Ability.TWO_BOXES))
def another_box_is_not_reached_by_address(scene: Scene) -> Iterator[str]:
    """Boxes of other users on the same machine, by each of their addresses, under a rule that allows everything.

    Container networks let containers talk to each other unless somebody turns it off (Docker's ``--icc``).
    """
    with _listening_box(scene) as (addresses, log):
        forms = [f"::ffff:{a}" for a in addresses if ":" not in a]
        run(scene, f"fire(targets((TCP, UDP, PING), {addresses + forms}, ({_BOX_PORT},)))", rules=EVERYTHING)
        told = run(scene, f"print(open({log!r}).read())")
        yield from (f"a visit by {visitor}" for visitor in told.split())


@case(
    Group.PATH,
    control=what_everything_opens,
    needs=_NEEDS,
    closed_in_the_open="A network namespace of its own has abstract sockets of its own.",
)
def an_abstract_socket_of_the_host_is_not_found(scene: Scene) -> Iterator[str]:
    """Unix sockets in the abstract namespace belong to the network namespace and ask for no file.

    CVE-2020-15257: containerd-shim's API was reached by every container in the host's network namespace.
    """
    name = "\0" + new_token()
    with ExitStack() as stack:
        listeners = []
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            listener.bind(name + str(kind.value))
            if kind == socket.SOCK_STREAM:
                listener.listen()
            listeners.append(listener)
        run(
            scene,
            f"""
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with refused(), socket.socket(socket.AF_UNIX, kind) as flow:
                    flow.connect({name!r} + str(kind.value))
                    flow.send(b"hello")
            """,
            rules=RULES,
        )
        for listener in listeners:
            listener.setblocking(False)
            with suppress(BlockingIOError):
                told = listener.recv(100) if listener.type == socket.SOCK_DGRAM else listener.accept()
                yield f"the host's socket heard {told!r}"
