"""One host's agent, put together from its parts: who tells whom, and what happens every few seconds.

Made over protocols, so that tests run it with a driver, a gate, a runtime and an api of their own.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from outgate import clock
from outgate.agent.build_log import LogTarget
from outgate.agent.denials import DenialRecords
from outgate.agent.desired import DesiredTable
from outgate.agent.devboxes import Devboxes, NamespaceCheck
from outgate.agent.enforcer import Enforcer, Gate
from outgate.agent.entrypoints import Entrypoints
from outgate.agent.executions import Executions
from outgate.agent.files import Files
from outgate.agent.flow_owners import FlowOwners
from outgate.agent.flow_table import note_flow_table
from outgate.agent.flowlog import FlowLog, FlowSink
from outgate.agent.gate_process import GateEvents
from outgate.agent.health import Health, WarningCode
from outgate.agent.kernel_flows import KernelFlows
from outgate.agent.kernel_thread import KernelThread
from outgate.agent.measuring import AgentCounts, HostMeter, MeasureSink
from outgate.agent.mounts import ObjectSource
from outgate.agent.observation import Sandboxes, is_in_namespace
from outgate.agent.prepared import PreparedDocuments
from outgate.agent.record import RecordStore, Stage
from outgate.agent.reporter import HostApi, Reporter
from outgate.agent.snapshots import Snapshots
from outgate.agent.steps import Host
from outgate.dataplane.apply_steps import StepObserver, ignore_step
from outgate.dataplane.driver import Denials, Driver
from outgate.dataplane.flow_table import FlowTableFill
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import OutgateError
from outgate.model.desired import (
    DesiredState,
    GateRecords,
    GateWarning,
    HostCapacity,
    HostReport,
    HostWarning,
    ObservedDevbox,
)
from outgate.model.flow import HostContext
from outgate.model.measures import GateMeasures
from outgate.runtime.base import Runtime, SandboxError

KERNEL_INTERVAL_S: Final = 3.0
"""How often the kernel is compared with what was set: what somebody changed is repaired within five seconds
(design §4.4), of which reading and repairing take up to two on a busy host with a thousand devboxes."""
OBSERVE_INTERVAL_S: Final = 5.0
"""How often the sandboxes and the gate are looked at."""
_DRIFT_SHOWN_ROUNDS: Final = 20
"""How many clean observations after a repaired drift its warning stays visible: a minute."""


class ManagedGate(Gate, Protocol):
    """A gate that is kept running."""

    async def run(self) -> None:
        """Keep it running until cancelled."""

    def restart(self) -> None:
        """End it, so that another is started."""


@dataclass(frozen=True, slots=True)
class AgentNeeds:
    """What an agent is made from. ``driver`` lives in ``kernel`` and its router stands.

    ``identify_router`` says which router namespace there is, so that a new one is noticed: a gate that lives
    in the old one serves nobody. ``on_step`` is told of each step of each apply.
    """

    driver: Driver
    kernel: KernelThread
    layout: NetworkLayout
    context: HostContext
    make_gate: Callable[[GateEvents], ManagedGate]
    runtime: Runtime
    api: HostApi
    objects: ObjectSource
    logs: LogTarget
    flows: FlowSink
    records: RecordStore
    url: str
    capacity: HostCapacity | None = None
    measures: MeasureSink | None = None
    """Who hears of what is counted, if anybody does."""
    identify_router: Callable[[], object] = lambda: None
    observe_flow_table: Callable[[], FlowTableFill | None] = lambda: None
    """How full the router's table of tracked flows is; called in ``kernel``."""
    check_namespace: NamespaceCheck = is_in_namespace
    on_step: StepObserver = ignore_step


class Agent(GateEvents):
    """Belongs to the event loop's thread. :meth:`run` works until cancelled; devboxes outlive it."""

    def __init__(self, needs: AgentNeeds) -> None:
        self._needs = needs
        self._log = structlog.get_logger("agent")
        boot_id = secrets.token_hex(8)
        self._flows = FlowLog(needs.flows, boot_id)
        self._counts = AgentCounts()
        prepared = PreparedDocuments(needs.context)
        self._denial_records = DenialRecords(needs.layout, prepared, needs.context)
        self._flow_owners = FlowOwners(needs.layout, prepared, needs.context)
        self._kernel_flows = KernelFlows(self._flow_owners, self._flows)
        self._meter = HostMeter(self._counts, self._flows, boot_id, needs.measures)
        self.executions = Executions(needs.runtime)
        self.files = Files(needs.runtime)
        self.snapshots = Snapshots(needs.runtime)
        self._health = Health(self._report_soon)
        self._gate = needs.make_gate(self)
        self._desired = DesiredTable()
        self._sandboxes = Sandboxes(needs.runtime)
        self._enforcer = Enforcer(
            driver=needs.driver,
            kernel=needs.kernel,
            gate=self._gate,
            layout=needs.layout,
            health=self._health,
            events=self,
            context=needs.context,
            on_step=needs.on_step,
            on_target=self._kernel_flows.learn,
            counts=self._counts,
        )
        self._reporter = Reporter(
            needs.api, self, self._health, boot_id=boot_id, url=needs.url, capacity=needs.capacity
        )
        self._entrypoints = Entrypoints(needs.runtime, self._sandboxes.observe, self._on_entrypoint_end)
        host = Host(
            records=needs.records,
            desired=self._desired,
            enforcer=self._enforcer,
            runtime=needs.runtime,
            sandboxes=self._sandboxes,
            entrypoints=self._entrypoints,
            objects=needs.objects,
            logs=needs.logs,
            layout=needs.layout,
            health=self._health,
            on_change=self._reporter.devbox_changed,
            on_step=needs.on_step,
        )
        self._devboxes = Devboxes(host, needs.check_namespace)
        self._denials: Denials | None = None
        self._denials_lost = 0
        self._router: object = None
        self._clean_observations = _DRIFT_SHOWN_ROUNDS
        self._was_ready = False
        self._gate_warnings: set[str] = set()
        """Raised by the gate that runs; they end with it. Bounded as warnings are."""

    async def run(self) -> None:
        """Work until cancelled, or until a part fails in a way that only a new start cures."""
        if self._needs.records.unreadable:
            names = ", ".join(self._needs.records.unreadable)
            text = f"Records that cannot be read, whose devboxes will be ended: {names}."
            self._health.raise_warning(WarningCode.RECORD_UNREADABLE, text)
        await self._sandboxes.observe()
        await self._observe_kernel()
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (
                    self._gate.run(),
                    self._enforcer.run(),
                    self._reporter.run_reports(),
                    self._reporter.run_polls(),
                    self._flows.run(),
                    self._meter.run(),
                    # Apart, so that none waits for another that hangs.
                    _again_and_again(KERNEL_INTERVAL_S, self._observe_kernel),
                    _again_and_again(OBSERVE_INTERVAL_S, self._observe_sandboxes),
                    _again_and_again(OBSERVE_INTERVAL_S, self._enforcer.check_gate),
                ):
                    tasks.create_task(work)
        finally:
            self._stop_listening()
            await self.snapshots.aclose()
            await self._entrypoints.aclose()
            await self._devboxes.aclose()

    def status(self) -> HostReport:
        """Everything the agent would report now."""
        return self._reporter.full_report()

    def find_running_slot(self, devbox_id: str) -> int | None:
        """The slot of a devbox that runs; None for any other."""
        record = self._needs.records.get(devbox_id)
        return record.slot if record is not None and record.stage is Stage.RUNNING else None

    # The api's side (reporter.HostState)

    def enforced(self) -> int:
        """The desired-state revision in force."""
        return self._enforcer.enforced

    def is_ready(self) -> bool:
        """Whether kernel and gate have their tables."""
        return self._enforcer.is_ready

    def devboxes(self) -> tuple[ObservedDevbox, ...]:
        """Every devbox that there is something to say about."""
        return self._devboxes.observed()

    def warnings(self) -> tuple[HostWarning, ...]:
        """Every warning in force."""
        return self._health.warnings()

    async def on_desired(self, news: DesiredState) -> None:
        """Take over what the api wants: policies at once, devboxes as their tasks get to it."""
        is_first = not self._desired.is_known
        changed = self._desired.merge(news)
        if is_first:
            # Before the first round, or it would take away the links of what runs already.
            self._devboxes.adopt_all()
        self._enforcer.want(news.revision, self._desired.policies)
        if is_first:
            self._devboxes.kick_all()
        for devbox_id in sorted(changed):  # ids sort by age: first come, first started
            self._devboxes.kick(devbox_id)

    # The gate's side

    def on_open(self) -> None:
        """The gate listens and waits for its table."""
        self._health.clear(WarningCode.GATE_DOWN)
        self._enforcer.look_again()

    def on_closed(self, why: str) -> None:
        """New names and name-bound flows are closed until the next gate stands."""
        for code in self._gate_warnings:
            self._health.clear(code)
        self._gate_warnings.clear()
        self._meter.gate = None
        self._counts.gate_restarts += 1
        self._health.raise_warning(WarningCode.GATE_DOWN, f"The gate is down ({why}); it is being started again.")
        self._note_readiness()
        # Those who wait for it keep waiting; what was enforced is enforced (see the enforcer's text).
        self._enforcer.look_again()

    def on_records(self, batch: GateRecords) -> None:
        """Decisions of the gate."""
        self._counts.gate_records_dropped += batch.dropped
        self._flows.add(batch.records, batch.dropped)

    def on_measures(self, measures: GateMeasures) -> None:
        """The gate's own counts."""
        self._meter.gate = measures

    def on_warning(self, warning: GateWarning) -> None:
        """The gate is degraded, or well again."""
        if warning.text:
            self._gate_warnings.add(warning.code)
            self._health.raise_warning(warning.code, warning.text)
        else:
            self._gate_warnings.discard(warning.code)
            self._health.clear(warning.code)

    # The enforcer's side

    def on_enforced(self) -> None:
        """A revision came into force: somebody waits to hear of it."""
        self._reporter.changed()

    def on_round(self) -> None:
        """Devboxes may have become filtered, or lost their links."""
        self._note_readiness()
        self._devboxes.on_round()

    def _note_readiness(self) -> None:
        if self._enforcer.is_ready is not self._was_ready:
            self._was_ready = self._enforcer.is_ready
            self._reporter.changed()

    def _report_soon(self) -> None:
        self._reporter.changed()

    def _on_entrypoint_end(self, devbox_id: str) -> None:
        self._devboxes.kick(devbox_id)

    # Every few seconds

    async def _observe_sandboxes(self) -> None:
        try:
            await self._sandboxes.observe()
        except (SandboxError, OSError) as error:
            self._health.raise_warning(WarningCode.RUNTIME_FAILING, f"Sandboxes cannot be observed: {error}")
        if self._desired.is_known:
            self._devboxes.kick_those_with_work()

    async def _observe_kernel(self) -> None:
        driver = self._needs.driver
        try:
            drift, addresses, fill = await self._needs.kernel.run(
                lambda: (driver.observe_drift(), driver.observe_host_addresses(), self._needs.observe_flow_table())
            )
            if fill is not None:
                note_flow_table(self._health, fill)
            self._note_drift(drift)
            self._enforcer.set_host_addresses(addresses)
            context = replace(self._needs.context, host_addresses=addresses)
            self._denial_records.context = self._flow_owners.context = context
            await self._follow_router()
        except (OutgateError, OSError) as error:
            self._health.raise_warning(WarningCode.DRIFT_UNKNOWN, f"The kernel's rules cannot be read back: {error}")
        else:
            self._health.clear(WarningCode.DRIFT_UNKNOWN)

    def _note_drift(self, drift: tuple[str, ...]) -> None:
        if drift:
            self._clean_observations = 0
            self._counts.drift_repairs += 1
            text = f"Somebody changed what Outgate set; it is set again: {' '.join(drift)}"
            self._health.raise_warning(WarningCode.DRIFT_REPAIRED, text)
            self._enforcer.set_again()
            return
        self._clean_observations += 1
        if self._clean_observations >= _DRIFT_SHOWN_ROUNDS:
            self._health.clear(WarningCode.DRIFT_REPAIRED)

    async def _follow_router(self) -> None:
        """Listen in the router namespace that is there; have the gate do so too."""
        router = self._needs.identify_router()
        if self._denials is not None and router == self._router:
            return
        if self._denials is not None:
            self._stop_listening()
            self._gate.restart()
        self._router = router
        self._denials = await self._needs.kernel.run(self._needs.driver.denials)
        asyncio.get_running_loop().add_reader(self._denials.fileno(), self._read_denials)
        self._kernel_flows.listen(await self._needs.kernel.run(self._needs.driver.flow_events))

    def _stop_listening(self) -> None:
        self._kernel_flows.stop()
        if self._denials is not None:
            asyncio.get_running_loop().remove_reader(self._denials.fileno())
            self._denials.close()
            self._denials = None

    def _read_denials(self) -> None:
        denials, records = self._denials, []
        if denials is None:
            return
        for denial in denials.read():
            slot = self._denial_records.slot_of(denial.link)
            found = None if slot is None else self._enforcer.find_placement(slot)
            if found is not None:
                records.append(self._denial_records.make(denial, *found, clock.wall_ms()))
        lost, self._denials_lost = denials.lost - self._denials_lost, denials.lost
        self._flows.add(records, dropped=lost)


async def _again_and_again(interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await work()
