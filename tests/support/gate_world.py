"""The gate as a process, in namespaces of its own: a host with a resolver on loopback, a router, and devboxes.

Devbox N has the link ogN in the router and the addresses of ``support.gate_harness.devbox(N)``.
"""

import ctypes
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import dns.message

from outgate.dataplane.gate_config import GateConfig
from outgate.dataplane.gate_control import FrameStream, decode_from_gate, encode_frame
from outgate.dataplane.nfnetlink import Nfnetlink
from outgate.dataplane.pin_elements import Pin, dump_pins
from outgate.model.desired import (
    FlowRecord,
    GateApplied,
    GateApply,
    GateReady,
    GateRecords,
    GateToAgent,
    GateWarning,
)
from outgate.model.measures import GateMeasures
from outgate.model.policy import NetworkPolicy
from support.dns_server import DnsServer
from support.gate_harness import devbox, document

T = TypeVar("T")

GATEWAY4, GATEWAY6 = "10.213.0.254", "fd00::fe"
WAIT_S = 30.0
USER = (65534, 65534)
"""Whom gates become: nobody."""
_CLONE_NEWNET = 0x4000_0000
_SETS = """
table inet outgate {
  set pins4 { type ifname . ipv4_addr; size 4096; flags timeout; }
  set pins6 { type ifname . ipv6_addr; size 4096; flags timeout; }
}
"""


def _sh(command: str, *, stdin: str | None = None) -> str:
    return subprocess.run(command.split(), input=stdin, text=True, check=True, capture_output=True).stdout


def _enter(namespace: str) -> None:
    with Path("/run/netns", namespace).open("rb") as opened:
        if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def run_in(namespace: str, work: Callable[[], T]) -> T:
    """What ``work`` returns when a thread in that namespace runs it."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            _enter(namespace)
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


class GateWorld:
    """Namespaces, resolver and gate. Use :func:`gate_world`."""

    def __init__(self, devboxes: int) -> None:
        token = secrets.token_hex(3)
        self.host, self.router = f"ogg-host-{token}", f"ogg-router-{token}"
        self.boxes = {number: f"ogg-box{number}-{token}" for number in range(1, devboxes + 1)}
        self.resolver: DnsServer
        self.gate: GateProcess
        self._gates: list[GateProcess] = []
        self._asked: list[Asked] = []

    def make(self) -> None:
        """Make the namespaces, the pin sets and the resolver."""
        for name in (self.host, self.router, *self.boxes.values()):
            _sh(f"ip netns add {name}")
            _sh(f"ip -n {name} link set lo up")
        _sh(f"ip -n {self.router} addr add {GATEWAY4}/32 dev lo")
        _sh(f"ip -n {self.router} addr add {GATEWAY6}/128 dev lo")
        for number, box in self.boxes.items():
            self._make_box(number, box)
        self.make_sets()
        self.resolver = run_in(self.host, lambda: DnsServer("127.0.0.1"))

    def _make_box(self, number: int, box: str) -> None:
        wanted, router = devbox(number), self.router
        _sh(f"ip link add eth0 netns {box} type veth peer name {wanted.link} netns {router}")
        _sh(f"ip -n {box} link set eth0 up")
        _sh(f"ip -n {router} link set {wanted.link} up")
        _sh(f"ip -n {box} addr add {wanted.address4}/32 dev eth0")
        _sh(f"ip -n {box} addr add {wanted.address6}/128 dev eth0 nodad")
        _sh(f"ip -n {router} addr add fe80::1/64 dev {wanted.link} nodad")
        _sh(f"ip -n {box} route add {GATEWAY4}/32 dev eth0")
        _sh(f"ip -n {box} -6 route add default via fe80::1 dev eth0")
        _sh(f"ip -n {router} route add {wanted.address4}/32 dev {wanted.link}")
        _sh(f"ip -n {router} -6 route add {wanted.address6}/128 dev {wanted.link}")

    def make_sets(self) -> None:
        """Make the table with the pin sets."""
        _sh(f"ip netns exec {self.router} nft -f -", stdin=_SETS)

    def remove_sets(self) -> None:
        """Remove the table with the pin sets."""
        _sh(f"ip netns exec {self.router} nft delete table inet outgate")

    def listed_pins(self) -> str:
        """The pin sets as nft lists them."""
        return _sh(f"ip netns exec {self.router} nft list table inet outgate")

    def pins(self) -> list[Pin]:
        """The pins in the kernel."""

        def dump() -> list[Pin]:
            with Nfnetlink() as netfilter:
                return dump_pins(netfilter)

        return run_in(self.router, dump)

    def pinned(self, number: int = 1) -> set[str]:
        """The addresses that are pinned for devbox N."""
        return {str(pin.address) for pin in self.pins() if pin.link == f"og{number}"}

    def start_gate(self, *, is_agent_alive: bool = True) -> "GateProcess":
        """Start a gate; it has no table yet. Without an agent, nobody is there to hear that it is ready."""
        config = GateConfig(
            namespace=f"/run/netns/{self.router}",
            dns_addresses=(GATEWAY4, GATEWAY6),
            resolvers=(f"127.0.0.1:{self.resolver.port}",),
            relay_port=0,
            user=USER,
        )
        self.gate = GateProcess(self.host, config, is_agent_alive=is_agent_alive)
        self._gates.append(self.gate)
        return self.gate

    def socket_in(self, number: int, family: int = socket.AF_INET, kind: int = socket.SOCK_DGRAM) -> socket.socket:
        """A socket of devbox N."""
        made = run_in(self.boxes[number], lambda: socket.socket(family, kind))
        made.settimeout(WAIT_S)
        return made

    def send(self, name: str, kind: str = "A", *, number: int = 1, address: str = GATEWAY4) -> "Asked":
        """Send a query of devbox N and do not wait."""
        opened = self.socket_in(number, socket.AF_INET6 if ":" in address else socket.AF_INET)
        opened.connect((address, 53))
        asked = Asked(opened, dns.message.make_query(name, kind, use_edns=0))
        self._asked.append(asked)
        opened.send(asked.query.to_wire())
        return asked

    def ask(self, name: str, kind: str = "A", *, number: int = 1, address: str = GATEWAY4) -> dns.message.Message:
        """What devbox N is answered."""
        return self.send(name, kind, number=number, address=address).wait()

    def close(self) -> None:
        """Remove everything."""
        for asked in self._asked:
            asked.close()
        for gate in self._gates:
            gate.close()
        with suppress(AttributeError):
            self.resolver.close()
        for name in (self.host, self.router, *self.boxes.values()):
            with suppress(subprocess.CalledProcessError):
                _sh(f"ip netns del {name}")


class Asked:
    """A query that was sent."""

    def __init__(self, opened: socket.socket, query: dns.message.Message) -> None:
        self._socket = opened
        self.query = query

    def wait(self) -> dns.message.Message:
        """The answer to it."""
        with self._socket:
            response = dns.message.from_wire(self._socket.recv(65535))
        assert self.query.is_response(response)
        return response

    def has_answer(self) -> bool:
        """Whether the answer is there by now."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


class GateProcess:
    """A gate and the agent's end of its control socket."""

    def __init__(self, host: str, config: GateConfig, *, is_agent_alive: bool = True) -> None:
        self.control, theirs = socket.socketpair()
        self.control.settimeout(WAIT_S)
        with theirs:
            command = ("nsenter", f"--net=/run/netns/{host}", sys.executable, "-m", "outgate.dataplane.gate")
            self.process = subprocess.Popen(
                (*command, "--control-fd", str(theirs.fileno())), pass_fds=(theirs.fileno(),)
            )
        self._stream = FrameStream()
        self._frames: list[GateToAgent] = []
        self.records: list[FlowRecord] = []
        self.warnings: list[GateWarning] = []
        self.control.sendall(encode_frame(config))
        if is_agent_alive:
            self.ready = self._wait_for(GateReady)
        else:
            self.control.close()

    def apply(self, update: GateApply) -> GateApplied:
        """Send an update and wait until it is answered."""
        self.control.sendall(encode_frame(update))
        return self._wait_for(GateApplied)

    def apply_policies(
        self, *policies: NetworkPolicy, devboxes: Sequence[tuple[int, str]] = ((1, "npol_1"),), revision: int = 1
    ) -> GateApplied:
        """A full update: these policies, and devboxes as (number, policy id)."""
        applied = self.apply(
            GateApply(
                revision=revision,
                full=True,
                policies=tuple(map(document, policies)),
                devboxes=tuple(devbox(number, policy_id) for number, policy_id in devboxes),
            )
        )
        assert applied.error is None
        return applied

    def _wait_for(self, kind: type[T]) -> T:
        while True:
            for frame in self._take_frames():
                if isinstance(frame, kind):
                    return frame

    def _take_frames(self) -> list[GateToAgent]:
        data = self.control.recv(1 << 20)
        if not data:
            raise ConnectionError(f"the gate ended with status {self.process.wait(WAIT_S)}")
        frames = [decode_from_gate(content) for content in self._stream.receive(data)]
        for frame in frames:
            if isinstance(frame, GateRecords):
                self.records += frame.records
            elif isinstance(frame, GateWarning):
                self.warnings.append(frame)
        return frames

    def wait_for_record(self, is_it: Callable[[FlowRecord], bool]) -> FlowRecord:
        """The first record that is as wanted."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            for record in self.records:
                if is_it(record):
                    return record
            self._take_frames()
        raise AssertionError("no such record")

    def wait_for_measures(self, are_they: Callable[[GateMeasures], bool]) -> GateMeasures:
        """The first measures that are as wanted; they come every five seconds."""
        deadline_s = time.monotonic() + 4 * WAIT_S
        while time.monotonic() < deadline_s:
            for frame in self._take_frames():
                if isinstance(frame, GateMeasures) and are_they(frame):
                    return frame
        raise AssertionError("no such measures")

    def threads(self) -> list[str]:
        """Directories in /proc of the process's threads."""
        return [str(path) for path in Path(f"/proc/{self.process.pid}/task").iterdir()]

    def close(self) -> None:
        """End it by SIGKILL and wait until it is gone."""
        self.process.kill()
        self.process.wait(WAIT_S)
        self.control.close()


@contextmanager
def gate_world(devboxes: int = 1) -> Iterator[GateWorld]:
    """A world with a gate that has no table yet."""
    world = GateWorld(devboxes)
    try:
        world.make()
        world.start_gate()
        yield world
    finally:
        world.close()
