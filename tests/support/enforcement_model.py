"""One host's enforcement with every wait in the test's hand: the agent's enforcer and the gate are the real ones.

What is a stand-in: the kernel (:class:`~outgate.dataplane.fake.FakeDriver`), the relay's sockets, and the two ways
between: an order to gate or kernel is carried out when the test says so, or lost with whoever had it.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, TypeVar, cast

from outgate.agent.enforcer import Enforcer
from outgate.agent.gate_process import GateClosedError, GateState
from outgate.agent.health import Health
from outgate.agent.kernel_thread import KernelThread
from outgate.agent.target import Placement
from outgate.core.compile import compile_policy
from outgate.core.decide import PreparedPolicy, decide_flow, decide_teach, prepare_policy
from outgate.core.documents import policy_from_document
from outgate.dataplane.driver import DriverError
from outgate.dataplane.elements import live_grants
from outgate.dataplane.fake import FakeDriver
from outgate.dataplane.gate import Gate, GateParts, RelayNeeds
from outgate.dataplane.gate_config import GateConfig
from outgate.dataplane.gate_table import DevboxEntry
from outgate.dataplane.pin_elements import Pin
from outgate.dataplane.pin_writer import PinPlace
from outgate.dataplane.relay_verdicts import judge_flow, may_dial
from outgate.model.addresses import IPAddress, Protocol
from outgate.model.desired import GateApplied, GateApply, PolicyDocument
from outgate.model.flow import Flow, Handshake, HostContext, HttpRequest, TlsHello
from outgate.model.names import DomainName
from outgate.model.plan import PolicyPlan
from outgate.model.verdict import Allow, AllowReason, Deny
from support.agent_world import LAYOUT

_T = TypeVar("_T")
ADDRESSES = {
    DomainName(name): tuple(map(ip_address, texts))
    for name, texts in (
        ("a.example", ("45.0.0.1", "45.0.0.3")),
        ("b.example", ("45.0.0.2", "45.0.0.3")),
        ("x.w.example", ("45.0.1.1",)),
    )
}
"""What the names resolve to; two share an address."""
_TURNS = 12
"""Turns of the loop in which the enforcer comes from one wait to the next."""


@dataclass(frozen=True)
class Probe:
    """A TCP flow that a devbox may try at any time."""

    address: IPAddress
    port: int
    handshake: Handshake


@dataclass(eq=False)
class OpenFlow:
    """A flow under way: in the kernel under ``grant``, or through the relay of one gate."""

    devbox_id: str
    probe: Probe
    grant: int | None = None
    relay: "ModelRelay | None" = None


class ManualKernel(KernelThread):
    """Transactions wait in ``pending`` until the test has them done."""

    def __init__(self) -> None:
        self.pending: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def run(self, call: Callable[[], _T]) -> _T:
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self.pending.append((call, future))
        return await future

    def submit(self, call: Callable[[], _T]) -> "Future[_T]":
        done: Future[_T] = Future()
        done.set_result(call())
        return done


@dataclass
class ModelPins:
    """The kernel's pin sets, as the gate sees them; they die with their link."""

    driver: FakeDriver

    def change(self, adds: Sequence[Pin], deletes: Sequence[PinPlace]) -> None:
        gone = {*deletes, *((pin.link, pin.address) for pin in adds)}
        kept = [pin for pin in self.driver.pins() if (pin.link, pin.address) not in gone]
        self.driver._pins[:] = [*kept, *adds]

    def dump(self) -> list[Pin]:
        return list(self.driver.pins())


@dataclass(eq=False)
class ModelRelay:
    """The relay's flows, judged as its connections judge them."""

    needs: RelayNeeds
    flows: dict[OpenFlow, DevboxEntry] = field(default_factory=dict)

    def rejudge(self, policy_ids: frozenset[str]) -> int:
        lost = [
            flow
            for flow, entry in self.flows.items()
            if entry.policy_id in policy_ids and not self.passes(entry, flow.probe)
        ]
        for flow in lost:
            del self.flows[flow]
        return len(lost)

    def drop_devbox(self, devbox_id: str) -> int:
        lost = [flow for flow in self.flows if flow.devbox_id == devbox_id]
        for flow in lost:
            del self.flows[flow]
        return len(lost)

    @property
    def flows_open(self) -> int:
        return len(self.flows)

    def passes(self, entry: DevboxEntry, probe: Probe) -> bool:
        """Whether a flow may begin, or go on."""
        if self.needs.table.get_devbox(entry.id) is not entry:
            return False
        taught = entry.pins.names_of(entry.id, probe.address, self.needs.loop.now())
        verdict = judge_flow(entry, probe.address, probe.port, probe.handshake, taught)
        if not isinstance(verdict, Allow):
            return False
        if verdict.reason is not AllowReason.HOSTNAME:
            return True
        # The relay connects it to the named host's own address.
        name = _named(probe.handshake)
        own = ADDRESSES.get(name, ()) if name is not None else ()
        return name is not None and any(may_dial(entry, name, address, probe.port) is None for address in own)


def _named(handshake: Handshake) -> DomainName | None:
    match handshake:
        case TlsHello(server_name=name) | HttpRequest(host=name):
            return name
    return None


class ModelGate:
    """What the enforcer speaks to: one gate after another. Orders wait in ``pending``."""

    def __init__(self, driver: FakeDriver) -> None:
        self.state = GateState.CLOSED
        self.epoch = 0
        self.pending: list[tuple[GateApply, asyncio.Future[GateApplied]]] = []
        self.process: Gate | None = None
        self.relay: ModelRelay | None = None
        self._driver = driver
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def open(self) -> None:
        """A new process, which knows nothing."""
        self.epoch += 1
        self.state = GateState.OPEN
        self._sockets = socket.socketpair()
        config = GateConfig(namespace="none", dns_addresses=(), resolvers=("192.0.2.53",), relay_port=0)
        parts = GateParts(ModelPins(self._driver), cast("Any", None), 0, self._make_relay)
        self.process = Gate(config, self._sockets[0], parts)

    def _make_relay(self, needs: RelayNeeds) -> ModelRelay:
        self.relay = ModelRelay(needs)
        return self.relay

    def kill(self) -> None:
        """SIGKILL: its flows end with it, its pins stay in the kernel."""
        self.state = GateState.CLOSED
        pending, self.pending = self.pending, []
        if self.process is not None and self._sockets is not None:
            self.process.loop.close()
            for each in self._sockets:
                each.close()
        self.process = self.relay = None
        for _, answer in pending:
            if not answer.done():
                answer.set_exception(GateClosedError("it died"))

    async def apply(self, frame: GateApply) -> GateApplied:
        if self.state is GateState.CLOSED:
            raise GateClosedError("it is dead")
        answer: asyncio.Future[GateApplied] = asyncio.get_running_loop().create_future()
        self.pending.append((frame, answer))
        return await answer

    async def check(self, epoch: int) -> None:
        """It answers whenever it lives."""
        if self.state is GateState.CLOSED or epoch != self.epoch:
            raise GateClosedError("it is dead")

    def carry_out(self, *, is_answered: bool) -> None:
        """Do what was ordered first; it may die before it says so."""
        frame, answer = self.pending.pop(0)
        assert self.process is not None
        applied = self.process._apply(frame)
        assert not applied.error, applied.error
        if is_answered:
            answer.set_result(applied)
        else:
            self.kill()
            answer.set_exception(GateClosedError("it died"))

    def find(self, devbox_id: str) -> DevboxEntry | None:
        """The gate's entry of a devbox, if it serves."""
        if self.process is None or self.relay is None:
            return None
        return self.process._table.get_devbox(devbox_id)


async def _let_go_on() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class _Events:
    def on_enforced(self) -> None:
        """Asked for, not told."""

    def on_round(self) -> None:
        """Likewise."""


class Host:
    """A host: its kernel outlives the agent, which takes its gate along when it dies."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.driver = FakeDriver(LAYOUT)
        self.flows: list[OpenFlow] = []
        self.enforced = 0
        """The last revision that an agent reported."""
        self._start()

    def _start(self) -> None:
        self.kernel = ManualKernel()
        self.gate = ModelGate(self.driver)
        self.enforcer = Enforcer(
            driver=self.driver,
            kernel=self.kernel,
            gate=self.gate,
            layout=LAYOUT,
            health=Health(lambda: None),
            events=_Events(),
            context=HostContext(),
        )
        self.enforcer._aborts._thread.close()
        self.enforcer._aborts._thread = self.kernel
        self.task = self.loop.create_task(self.enforcer.run())
        self.turn()

    def turn(self) -> None:
        """Let the agent go on until it waits for somebody."""
        self.loop.run_until_complete(_let_go_on())
        assert not self.task.done() or self.task.cancelled(), self.task
        self.enforced = max(self.enforced, self.enforcer.enforced)

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.turn()

    def crash(self, *, is_committed: bool) -> None:
        """SIGKILL the agent. A transaction that was handed over is in the kernel, or is not."""
        if is_committed and self.kernel.pending:
            self.kernel.pending[0][0]()
        self.gate.kill()
        self.task.cancel()
        self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))
        self.driver._is_known = False
        self._start()

    def close(self) -> None:
        self.gate.kill()
        self.task.cancel()
        self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))

    def commit(self, *, is_taken: bool) -> None:
        """The kernel takes the transaction, or refuses it."""
        call, answer = self.kernel.pending.pop(0)
        if is_taken:
            answer.set_result(call())
        else:
            answer.set_exception(DriverError("No buffer space."))
        self.turn()

    def teach(self, devbox_id: str, name: DomainName) -> None:
        """The devbox looks ``name`` up, as the DNS gate serves it."""
        entry = self.gate.find(devbox_id)
        if entry is None or self.gate.process is None:
            return
        for address in ADDRESSES[name]:
            if not isinstance(decide_teach(entry.policy, name, address, entry.context), Deny):
                change = entry.pins.teach(devbox_id, name, address, 60, self.gate.process.loop.now())
                self.gate.process._writer.submit(entry, change)
        self.gate.process._writer.commit()

    # What would pass now

    def kernel_grant(self, devbox_id: str, probe: Probe) -> int | None:
        """The grant under which the kernel alone lets a new flow pass."""
        link = self.driver.state.devboxes.get(devbox_id)
        if link is None:
            return None
        plan = self.driver.state.plans[link.policy_number]
        if plan.grant_all in plan.live:
            return plan.grant_all
        value = int(probe.address)
        for cell in plan.port_cells:
            is_address = cell.first <= value <= cell.last
            if is_address and cell.protocol is Protocol.TCP and cell.port_first <= probe.port <= cell.port_last:
                return cell.grant
        return None

    def relays(self, devbox_id: str, probe: Probe) -> bool:
        """Whether the kernel hands a new flow to the relay, and the relay lets it pass."""
        link = self.driver.state.devboxes.get(devbox_id)
        entry = self.gate.find(devbox_id)
        if link is None or entry is None or self.gate.relay is None:
            return False
        is_pinned = any((pin.link, pin.address) == (link.link, probe.address) for pin in self.driver.pins())
        return is_pinned and self.gate.relay.passes(entry, probe)

    def passes(self, devbox_id: str, probe: Probe) -> bool:
        """Whether a new flow would pass."""
        return self.kernel_grant(devbox_id, probe) is not None or self.relays(devbox_id, probe)

    def open_flow(self, devbox_id: str, probe: Probe) -> None:
        """Begin a flow, if it passes."""
        grant = self.kernel_grant(devbox_id, probe)
        if grant is not None:
            self.flows.append(OpenFlow(devbox_id, probe, grant=grant))
        elif self.relays(devbox_id, probe) and self.gate.relay is not None:
            entry = self.gate.find(devbox_id)
            assert entry is not None
            flow = OpenFlow(devbox_id, probe, relay=self.gate.relay)
            self.gate.relay.flows[flow] = entry
            self.flows.append(flow)

    def is_alive(self, flow: OpenFlow) -> bool:
        """Whether its bytes still go out."""
        if flow.relay is not None:
            return flow.relay is self.gate.relay and flow in flow.relay.flows
        return flow.devbox_id in self.driver.state.devboxes and flow.grant in live_grants(
            self.driver.state.plans.values()
        )


@lru_cache(maxsize=4096)
def allows(document: PolicyDocument, probe: Probe) -> bool:
    """Whether a policy lets a flow pass, whichever of its address's names the devbox has looked up."""
    taught = tuple(name for name, addresses in ADDRESSES.items() if probe.address in addresses)
    flow = Flow(Protocol.TCP, probe.address, probe.port, probe.handshake)
    return isinstance(decide_flow(prepare(document), flow, taught, HostContext()), Allow)


@lru_cache(maxsize=256)
def prepare(document: PolicyDocument) -> PreparedPolicy:
    """The policy as decisions take it."""
    return prepare_policy(policy_from_document(document)[0], HostContext())


@lru_cache(maxsize=256)
def plan_of(document: PolicyDocument) -> PolicyPlan:
    """The policy as the kernel takes it."""
    policy, grants = policy_from_document(document)
    return compile_policy(policy, grants, HostContext())


def place(devbox_id: str, policy_id: str, slot: int) -> Placement:
    """Where a devbox of the one account is to be."""
    return Placement(devbox_id, "acc_1", policy_id, slot)
