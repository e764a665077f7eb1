"""A small world for the driver: a host, a far side, and whatever devboxes a test makes. All in namespaces of its own.

The test's thread lives in the host namespace while the world stands. Sockets are made in the namespace where they
belong and used from the test's own thread, so that a test reads from top to bottom.
"""

import contextlib
import secrets
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from outgate.core.ranges import always_denied_networks
from outgate.dataplane import netns
from outgate.dataplane.apply_steps import StepObserver, ignore_step
from outgate.dataplane.driver import DevboxLink, RouterState, link_devbox
from outgate.dataplane.layout import NetworkLayout, choose_layout
from outgate.dataplane.linux import LinuxDriver
from outgate.dataplane.ruleset import RulesetOptions
from outgate.model.addresses import Protocol
from outgate.model.plan import AddressCell, PolicyPlan, PortCell, grant_of_allow_all

HOST4, HOST6 = "45.45.45.1", "2a0f:4444::1"
FAR4, FAR6 = "45.45.45.2", "2a0f:4444::2"
ALLOWED4, OTHER4 = "45.45.46.1", "45.45.47.1"
ALLOWED6, OTHER6 = "2a0f:4444:1::1", "2a0f:4444:2::1"
PRIVATE4 = "10.99.0.1"
FAR_ADDRESSES = (ALLOWED4, OTHER4, PRIVATE4, "45.45.46.2", ALLOWED6, OTHER6, "169.254.169.254")
ACCEPT_TIMEOUT_S = 20.0
DENIED_WITHIN_S = 1.0
ATTEMPTS_MAX = 5


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def cidr_plan(number: int, *rules: tuple[str, int, Protocol | None, int, int]) -> PolicyPlan:
    """A plan of (network, grant, protocol or None for every protocol, first port, last port)."""
    ports: list[PortCell] = []
    others: list[AddressCell] = []
    for text, grant, protocol, first, last in rules:
        network = IPv4Network(text)
        start, end = int(network[0]), int(network[-1])
        own = (Protocol.TCP, Protocol.UDP) if protocol is None else (protocol,)
        ports += [PortCell(start, end, each, first, last, grant) for each in own]
        if protocol is None:
            others.append(AddressCell(start, end, grant))
    live = frozenset(rule[1] for rule in rules)
    return PolicyPlan(number, grant_of_allow_all(number), live, tuple(sorted(ports)), tuple(sorted(others)))


def everything_plan(number: int) -> PolicyPlan:
    grant = grant_of_allow_all(number)
    return PolicyPlan(number, grant, frozenset({grant}), (), ())


@dataclass
class Far:
    """The far side: what arrives there is what got out."""

    namespace: str

    def listen(self, address: str, port: int = 443) -> socket.socket:
        with netns.entered(self.namespace):
            server = socket.create_server((address, port), family=_family(address), backlog=4096)
        server.settimeout(ACCEPT_TIMEOUT_S)
        return server

    def datagrams(self, address: str, port: int) -> socket.socket:
        with netns.entered(self.namespace):
            receiver = socket.socket(_family(address), socket.SOCK_DGRAM)
        receiver.bind((address, port))
        receiver.settimeout(ACCEPT_TIMEOUT_S)
        return receiver

    @contextmanager
    def tap(self) -> Iterator["Tap"]:
        """Every packet that reaches the far side while the body runs."""
        with netns.entered(self.namespace):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            raw.bind(("eth0", 0))
        try:
            yield Tap(raw)
        finally:
            raw.close()


@dataclass
class Tap:
    raw: socket.socket

    def packets(self, wanted: Callable[[bytes], bool], settle_s: float = 0.2) -> list[bytes]:
        """What came in and is wanted, once nothing has come for ``settle_s``."""
        found = []
        while select.select([self.raw], [], [], settle_s)[0]:
            packet, (_, _, kind, _, _) = self.raw.recvfrom(65536)
            if kind != socket.PACKET_OUTGOING and wanted(packet):
                found.append(packet)
        return found


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass
class World:
    host: str
    far: Far
    layout: NetworkLayout
    drivers: list[LinuxDriver] = field(default_factory=list)

    def driver(self, *, flows_max: int = 4096, on_step: StepObserver = ignore_step) -> LinuxDriver:
        driver = LinuxDriver(self.layout, RulesetOptions(always_denied_networks(), flows_max), on_step)
        self.drivers.append(driver)
        return driver

    def devbox(self, slot: int, policy_number: int, name: str | None = None) -> DevboxLink:
        return link_devbox(self.layout, slot, name or f"dbx_{slot}", policy_number)

    def state(self, *plans: PolicyPlan, boxes: dict[int, int] | None = None) -> RouterState:
        """The plans, and devboxes by slot with their policy numbers."""
        devboxes = [self.devbox(slot, number) for slot, number in (boxes or {}).items()]
        host = frozenset({IPv4Address(HOST4)})
        return RouterState({p.number: p for p in plans}, {d.devbox_id: d for d in devboxes}, host)

    def box(self, slot: int) -> str:
        return self.layout.devbox_namespace(slot)

    def connect(self, slot: int, address: str, port: int = 443, timeout_s: float = ACCEPT_TIMEOUT_S) -> socket.socket:
        with netns.entered(self.box(slot)):
            client = socket.socket(_family(address), socket.SOCK_STREAM)
        client.settimeout(timeout_s)
        try:
            client.connect((address, port))
        except OSError:
            client.close()
            raise
        return client

    def refused_within_s(self, slot: int, address: str, port: int = 443) -> float:
        """Seconds until a connection attempt is refused; fails when it is not.

        What is slow is tried again, and the quickest counts: a rule that holds up does so each time, a busy machine not.
        """
        took_s: list[float] = []
        while len(took_s) < ATTEMPTS_MAX and not (took_s and took_s[-1] < DENIED_WITHIN_S):
            start = time.monotonic()
            try:
                self.connect(slot, address, port).close()
            except TimeoutError:
                raise AssertionError(f"{address}:{port} hung instead of being refused") from None
            except OSError:
                took_s.append(time.monotonic() - start)
            else:
                raise AssertionError(f"{address}:{port} was reached")
        return min(took_s)

    def udp(self, slot: int, address: str, port: int, data: bytes = b"ping") -> socket.socket:
        with netns.entered(self.box(slot)):
            sender = socket.socket(_family(address), socket.SOCK_DGRAM)
        sender.settimeout(ACCEPT_TIMEOUT_S)
        sender.connect((address, port))
        sender.send(data)
        return sender


@contextmanager
def make_world(*, has_ipv6: bool = True) -> Iterator[World]:
    suffix = secrets.token_hex(3)
    host, far = f"ogt{suffix}-host", f"ogt{suffix}-far"
    with contextlib.ExitStack() as stack:
        for name in (host, far):
            with netns.created(name):
                pass
            stack.callback(netns.remove_namespace, name)
        _connect(host, far, has_ipv6=has_ipv6)
        stack.enter_context(netns.entered(host))
        world = World(host, Far(far), choose_layout(suffix, (), has_ipv6=has_ipv6))
        stack.callback(_clean, world)
        yield world


def _clean(world: World) -> None:
    driver = world.driver()
    driver.teardown()
    for each in world.drivers:
        each.close()


def _connect(host: str, far: str, *, has_ipv6: bool) -> None:
    ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far)
    for namespace, address4, address6, gateway4, gateway6 in (
        (host, HOST4, HOST6, FAR4, FAR6),
        (far, FAR4, FAR6, HOST4, HOST6),
    ):
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "link", "set", "eth0", "up")
        ip("-n", namespace, "address", "add", f"{address4}/24", "dev", "eth0")
        if has_ipv6:
            ip("-n", namespace, "address", "add", f"{address6}/64", "dev", "eth0", "nodad")
        if namespace == host:
            ip("-n", namespace, "route", "add", "default", "via", gateway4)
            if has_ipv6:
                ip("-n", namespace, "route", "add", "default", "via", gateway6)
    for address in FAR_ADDRESSES:
        if ":" in address and not has_ipv6:
            continue
        length, extra = ("128", ["nodad"]) if ":" in address else ("32", [])
        ip("-n", far, "address", "add", f"{address}/{length}", "dev", "lo", *extra)
    ip("-n", host, "route", "add", "169.254.0.0/16", "via", FAR4)
