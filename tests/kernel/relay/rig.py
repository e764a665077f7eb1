"""A devbox, a router with the relay and a server, each in a network namespace of its own."""

import ctypes
import os
import queue
import secrets
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest

from outgate import clock
from outgate.dataplane.gate_table import GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.records import Recorder
from outgate.dataplane.relay import Relay
from outgate.dataplane.relay_context import RelayLimits
from outgate.dataplane.resolver import Resolution
from outgate.model.desired import CidrDocument, FlowRecord, GateApply, GateDevbox, GateRecords, PolicyDocument
from outgate.model.flow import HostContext
from outgate.model.names import DomainName, parse_domain_name

T = TypeVar("T")

BOX4, BOX6 = "10.213.0.2", "fd13::2"
OTHER_BOX4 = "10.213.0.3"
# Public-looking, since the floor denies the ranges meant for examples; nothing leaves the namespaces.
SERVER4, OTHER4, CLOSED4 = "45.11.7.10", "45.11.7.20", "45.11.7.30"
SERVER6 = "2a0a:7::10"
RELAY_PORT = 15001
DEVBOX, OTHER_DEVBOX, POLICY, OTHER_POLICY = "dbx_1", "dbx_2", "npol_1", "npol_2"
_CLONE_NEWNET = 0x40000000
_RULES = f"""
table inet relay_test {{
  chain judge {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "box" meta l4proto tcp socket transparent 1 meta mark set 1 accept
    iifname "box" meta nfproto ipv4 meta l4proto tcp tproxy ip to :{RELAY_PORT} meta mark set 1 accept
    iifname "box" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{RELAY_PORT} meta mark set 1 accept
  }}
  chain pass {{ type filter hook forward priority filter; policy drop; }}
}}
"""


def sh(command: str, *, stdin: str | None = None) -> None:
    subprocess.run(command.split(), input=stdin, text=True, check=True, capture_output=True)


def enter_namespace(name: str) -> None:
    """Move the calling thread (only) into a network namespace."""
    with Path(f"/run/netns/{name}").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


class Net:
    """The three namespaces. ``run_in`` runs a function inside one of them."""

    def __init__(self) -> None:
        token = secrets.token_hex(3)
        self.box, self.router, self.server = (f"ogr-{part}-{token}" for part in ("box", "router", "server"))

    def make(self) -> None:
        b, r, s = self.box, self.router, self.server
        for name in (b, r, s):
            sh(f"ip netns add {name}")
            sh(f"ip -n {name} link set lo up")
        sh(f"ip link add eth0 netns {b} type veth peer name box netns {r}")
        sh(f"ip link add eth0 netns {s} type veth peer name uplink netns {r}")
        for name, device in ((b, "eth0"), (r, "box"), (r, "uplink"), (s, "eth0")):
            sh(f"ip -n {name} link set {device} up")
        for address in (f"{BOX4}/24", f"{OTHER_BOX4}/24"):
            sh(f"ip -n {b} addr add {address} dev eth0")
        sh(f"ip -n {b} addr add {BOX6}/64 dev eth0 nodad")
        sh(f"ip -n {r} addr add 10.213.0.1/24 dev box")
        sh(f"ip -n {r} addr add fd13::1/64 dev box nodad")
        sh(f"ip -n {r} addr add 45.11.7.1/24 dev uplink")
        sh(f"ip -n {r} addr add 2a0a:7::1/64 dev uplink nodad")
        for address in (SERVER4, OTHER4, CLOSED4):
            sh(f"ip -n {s} addr add {address}/24 dev eth0")
        sh(f"ip -n {s} addr add {SERVER6}/64 dev eth0 nodad")
        sh(f"ip -n {b} route add default via 10.213.0.1")
        sh(f"ip -n {b} -6 route add default via fd13::1")
        for family in ("-4", "-6"):
            sh(f"ip -n {r} {family} rule add fwmark 1 lookup 100")
            sh(f"ip -n {r} {family} route add local default dev lo table 100")
        for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            sh(f"ip netns exec {r} sysctl -qw net.{name}=1")
        sh(f"ip netns exec {r} nft -f -", stdin=_RULES)

    def remove(self) -> None:
        for name in (self.box, self.router, self.server):
            with suppress(subprocess.CalledProcessError):
                sh(f"ip netns del {name}")

    def run_in(self, namespace: str, work: Callable[[], T]) -> T:
        result: list[T] = []
        failure: list[BaseException] = []

        def body() -> None:
            try:
                enter_namespace(namespace)
                result.append(work())
            except BaseException as error:  # noqa: BLE001 - handed over to the caller below
                failure.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def connect(self, port: int, *, to: str = SERVER4, source: str = BOX4) -> socket.socket:
        """What a program in the box does."""

        def work() -> socket.socket:
            return socket.create_connection((to, port), 10, source_address=(BOX6 if ":" in to else source, 0))

        return self.run_in(self.box, work)

    def listen(self, port: int, *, at: str = SERVER4, backlog: int = 512) -> socket.socket:
        """A server's listener; ``accept`` on it to see what reached the far side."""

        def work() -> socket.socket:
            listener = socket.create_server(
                (at, port), backlog=backlog, family=socket.AF_INET6 if ":" in at else socket.AF_INET
            )
            listener.settimeout(30)
            return listener

        return self.run_in(self.server, work)


def accept(listener: socket.socket) -> socket.socket:
    accepted, _ = listener.accept()
    accepted.settimeout(30)
    return accepted


def assert_nobody_came(listener: socket.socket) -> None:
    """Nobody within a moment: whoever is let through comes at once. A slow machine may hide one, and accuses nobody."""
    listener.settimeout(0.2)
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.settimeout(30)


def receive_all(connection: socket.socket) -> bytes:
    """Everything up to the end."""
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        assert part, received
        received += part
    return received


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        part = connection.recv(1)
        assert part, received
        received += part
    return received


def is_reset(connection: socket.socket, *, within_s: float = 5.0) -> bool:
    """Whether the connection ends by a reset and not in peace."""
    connection.settimeout(within_s)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


def is_silent(connection: socket.socket, *, for_s: float = 0.2) -> bool:
    """Whether nothing arrives, neither bytes nor an end."""
    connection.settimeout(for_s)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(30)
    return False


@contextmanager
def sending(connection: socket.socket, data: bytes, *, finishes: bool = True) -> Iterator[None]:
    """Send ``data`` (and the end) from a thread, while the other side is read."""

    def work() -> None:
        connection.sendall(data)
        if finishes:
            connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(20)
    assert not thread.is_alive()


class Names:
    """A resolver that knows what it was told. ``asked`` are the questions it got."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, ...]] = {}
        self.asked: list[str] = []
        self.is_slow = False
        self.held: list[Callable[[], None]] = []

    def resolve(self, name: DomainName, callback: Callable[[Resolution], None]) -> None:
        self.asked.append(name)
        self.held.append(lambda: self._answer(name, callback))
        if not self.is_slow:
            self.answer_held()

    def answer_held(self) -> None:
        """Answer what was asked while ``is_slow``. On the loop's thread."""
        held, self.held = self.held, []
        for answer in held:
            answer()

    def _answer(self, name: DomainName, callback: Callable[[Resolution], None]) -> None:
        addresses = tuple(ip_address(text) for text in self.known.get(name, ()))
        callback(Resolution(addresses, 60, None if addresses else "NXDOMAIN"))


class Router:
    """The relay and what it needs, on a thread of its own in the router namespace."""

    def __init__(
        self,
        net: Net,
        limits: RelayLimits | None = None,
        context: HostContext | None = None,
        front_socket: str | None = None,
    ) -> None:
        self._net = net
        self._front_socket = front_socket
        self._limits = limits or RelayLimits()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK)
        self._ready = threading.Event()
        self.time_skipped_s = 0.0
        self.names = Names()
        self.records: list[FlowRecord] = []
        self.errors: list[Exception] = []
        self.context = context or HostContext(address_bound=True)
        self.thread = threading.Thread(target=self._body, name="relay")

    def start(self) -> None:
        self.thread.start()
        assert self._ready.wait(10), self.errors

    def stop(self) -> None:
        self.call(self.loop.stop)
        self.thread.join(10)
        assert not self.thread.is_alive()
        os.close(self._wakeup)

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the loop's thread, between two turns."""
        done: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

        def body() -> None:
            try:
                done.put(work())
            except BaseException as error:  # noqa: BLE001 - handed over to the caller below
                done.put(error)

        self._calls.put(body)
        os.eventfd_write(self._wakeup, 1)
        result = done.get(timeout=20)
        if isinstance(result, BaseException):
            raise result
        return result

    def _body(self) -> None:
        enter_namespace(self._net.router)
        self.loop = Loop(self.errors.append, lambda: clock.monotonic_s() + self.time_skipped_s)
        self.table = GateTable(self.context)
        self.recorder = Recorder(self.loop, self._take_records)
        listeners = [make_listener(socket.AF_INET), make_listener(socket.AF_INET6)]
        self.relay = Relay(
            self.loop,
            self.table,
            self.names,
            self.recorder,
            limits=self._limits,
            listeners=listeners,
            keep_pin=lambda _entry, _write: None,
            front_socket=self._front_socket,
        )
        self.loop.register(self._wakeup, select.EPOLLIN, self._run_calls)
        self._ready.set()
        self.loop.run()
        self.relay.close()
        for listener in listeners:
            listener.close()
        self.loop.close()

    def _take_records(self, batch: GateRecords) -> bool:
        self.records.extend(batch.records)
        return True

    def _run_calls(self, _events: int) -> None:
        os.eventfd_read(self._wakeup)
        while not self._calls.empty():
            self._calls.get()()

    # What the agent and the DNS gate would do

    def apply(self, *policies: PolicyDocument, boxes: Sequence[GateDevbox] = ()) -> int:
        """Put policies in force, as an update does; returns how many flows were reset."""

        def work() -> int:
            full = not len(self.table)
            update = GateApply(
                self.table.revision + 1, full, tuple(policies), devboxes=tuple(boxes), host_addresses=("45.11.7.1",)
            )
            change = self.table.apply(update)
            for devbox_id in change.removed_devbox_ids:
                self.relay.drop_devbox(devbox_id)
            return self.relay.rejudge(change.policy_ids)

        return self.call(work)

    def teach(self, name: str, *addresses: str, devbox: str = DEVBOX) -> None:
        """What a lookup of ``name`` does."""
        self.names.known[name] = addresses

        def work() -> None:
            for text in addresses:
                self.table.pins.teach(devbox, parse_domain_name(name), ip_address(text), 60, self.loop.now())

        self.call(work)

    def skip_time(self, seconds: float) -> None:
        """Let time pass without waiting."""
        self.time_skipped_s += seconds
        self.call(lambda: None)

    def take_records(self) -> list[FlowRecord]:
        """What was recorded since the last call; the recorder gathers for a moment."""
        self.skip_time(1)
        self.call(lambda: None)
        taken, self.records = self.records, []
        return taken

    def forget(self, devbox: str) -> None:
        """Reset its flows and forget its pins."""

        def work() -> None:
            self.relay.drop_devbox(devbox)
            self.table.pins.forget_devbox(devbox, self.loop.now())

        self.call(work)

    def wait_for(self, condition: Callable[[], bool], *, within_s: float = 5.0) -> bool:
        """Whether ``condition`` (asked on the loop's thread) comes true in time."""
        until_s = clock.monotonic_s() + within_s
        while not self.call(condition):
            if clock.monotonic_s() > until_s:
                return False
            threading.Event().wait(0.01)
        return True

    def flow_count(self, devbox: str = DEVBOX) -> int:
        return self.call(lambda: self.relay.flow_count(devbox))


def make_listener(family: socket.AddressFamily) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET:
        listener.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
        listener.bind(("0.0.0.0", RELAY_PORT))
    else:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT
        listener.bind(("::", RELAY_PORT))
    listener.listen(16384)
    return listener


def policy(
    *hostnames: str,
    policy_id: str = POLICY,
    revision: int = 1,
    allow_all: bool = False,
    allow_devbox_to_devbox: bool = False,
    cidrs: Sequence[str] = (),
) -> PolicyDocument:
    return PolicyDocument(
        id=policy_id,
        name=f"test {policy_id}",
        number=16 if policy_id == POLICY else 17,
        revision=revision,
        allow_all=allow_all,
        allow_devbox_to_devbox=allow_devbox_to_devbox,
        allowed_hostnames=hostnames,
        allowed_cidrs=tuple(CidrDocument(cidr, 100 + index) for index, cidr in enumerate(cidrs)),
    )


BOXES = (
    GateDevbox(DEVBOX, "acc_1", POLICY, "box", BOX4, BOX6),
    GateDevbox(OTHER_DEVBOX, "acc_1", OTHER_POLICY, "box2", OTHER_BOX4),
)


@contextmanager
def running(
    limits: RelayLimits | None = None, context: HostContext | None = None, front_socket: str | None = None
) -> Iterator[tuple[Net, Router]]:
    net = Net()
    try:
        net.make()
        router = Router(net, limits, context, front_socket)
        router.start()
        try:
            yield net, router
        finally:
            router.stop()
            assert not router.errors, router.errors
    finally:
        net.remove()
