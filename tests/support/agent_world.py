"""Everything around an agent, in memory: kernel, gate, runtime and api, with one journal of what happened in which order.

Each sandbox start checks the property that matters: kernel and gate have confirmed the devbox.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TypeVar

import msgspec

from outgate.agent.agent import Agent, AgentNeeds
from outgate.agent.gate_process import GateClosedError, GateEvents, GateState
from outgate.agent.kernel_thread import KernelThread
from outgate.agent.record import RecordStore
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.dataplane.driver import Applied, DriverError, RouterState
from outgate.dataplane.fake import FakeDriver
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import OutgateError
from outgate.model.desired import (
    BuildLogPart,
    CidrDocument,
    DesiredPhase,
    DesiredState,
    DevboxDocument,
    FlowBatch,
    FlowRecord,
    GateApplied,
    GateApply,
    GateDevbox,
    HostReport,
    ObservedDevbox,
    PolicyDocument,
)
from outgate.model.executions import FileProblem, LogLevel, LogLine, LogSource
from outgate.model.flow import HostContext
from outgate.runtime.base import (
    BoxFileError,
    ExecOutput,
    ExecSpec,
    ExecState,
    ExecStatus,
    ExecutionNotFoundError,
    KillScope,
    ObservedSandbox,
    OutputStream,
    SandboxError,
    SandboxNotFoundError,
    SandboxPhase,
    SandboxSpec,
    SandboxUser,
)

LAYOUT = NetworkLayout("abc123", IPv4Network("10.213.16.0/20"), IPv6Network("fd00:1::/64"))
CHECK_PID = 1

_T = TypeVar("_T")


def make_document(
    policy_id: str = "npol_1",
    *,
    revision: int = 1,
    hosts: tuple[str, ...] = (),
    cidrs: tuple[str, ...] = (),
    enforcement: str = "enforce",
    **more: bool,
) -> PolicyDocument:
    """A policy whose number and grants follow from its id (``npol_<n>``)."""
    number = 16 + int(policy_id.rpartition("_")[2])
    grants = {cidr: 1000 * number + position for position, cidr in enumerate(cidrs)}
    return PolicyDocument(
        id=policy_id,
        name=policy_id,
        number=number,
        revision=revision,
        allowed_hostnames=hosts,
        allowed_cidrs=tuple(CidrDocument(cidr, grant) for cidr, grant in grants.items()),
        enforcement=enforcement,
        **more,
    )


def make_devbox(name: str, policy_id: str = "npol_1", **more: object) -> DevboxDocument:
    """A devbox that is wanted."""
    given: dict[str, object] = {"phase": DesiredPhase.RUNNING, **more}
    return DevboxDocument(id=name, account_id="acc_1", policy_id=policy_id, **given)  # type: ignore[arg-type] # any field


class InlineKernel(KernelThread):
    """The kernel thread without a thread: simulated time cannot wait for one."""

    async def run(self, call: Callable[[], _T]) -> _T:
        await asyncio.sleep(0)
        return call()

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(call())
        except OutgateError as error:
            future.set_exception(error)
        return future


class JournalDriver(FakeDriver):
    """A kernel that writes down what it is set to."""

    def __init__(self, journal: list[str]) -> None:
        super().__init__(LAYOUT)
        self.journal = journal
        self.refuse_cells_of: int | None = None
        """Number of a policy whose cells the kernel does not take."""

    def set(self, state: RouterState) -> Applied:
        refused = state.plans.get(self.refuse_cells_of or 0)
        if refused is not None and len(refused.live) > 1:
            raise DriverError("the kernel does not take these cells")
        before = dict(self.state.devboxes)
        applied = super().set(state)
        for name in self.state.devboxes.keys() - before.keys():
            self.journal.append(f"kernel +{name}")
        for name in before.keys() - self.state.devboxes.keys():
            self.journal.append(f"kernel -{name}")
        self.journal.append("kernel set")
        return applied

    def abort_revoked(self, grants: Collection[int], devboxes: Collection[str]) -> int:
        self.journal.append(f"kernel abort {sorted(grants)} {sorted(devboxes)}")
        return super().abort_revoked(grants, devboxes)

    def forget(self) -> None:
        """The process that held the driver died; the kernel did not."""
        self._is_known = False


class FakeGate:
    """A gate that is a table. ``kill`` ends it as SIGKILL does; another one stands ``restart_s`` later."""

    def __init__(self, journal: list[str], events: GateEvents) -> None:
        self.journal, self.events = journal, events
        self.state = GateState.CLOSED
        self.epoch = 0
        self.table_epoch = 0
        self.restart_s = 0.5
        self.apply_s = 0.0
        self.refuse_with: str | None = None
        self.frames: list[GateApply] = []
        self.policies: dict[str, PolicyDocument] = {}
        self.devboxes: dict[str, GateDevbox] = {}
        self.is_stopped = False
        self.hangs = False
        self._death = asyncio.Event()

    async def run(self) -> None:
        while True:
            if self.is_stopped:
                await asyncio.sleep(self.restart_s)
                continue
            self.epoch += 1
            self.state = GateState.OPEN
            self._death.clear()
            self.events.on_open()
            await self._death.wait()
            self.events.on_closed("killed by the test")
            await asyncio.sleep(self.restart_s)

    def kill(self) -> None:
        self.state = GateState.CLOSED
        self.policies, self.devboxes = {}, {}
        self.journal.append("gate dead")
        self._death.set()

    restart = kill

    async def apply(self, frame: GateApply) -> GateApplied:
        epoch = self.epoch
        await asyncio.sleep(self.apply_s)
        if self.state is GateState.CLOSED or epoch != self.epoch:
            raise GateClosedError("the gate is dead")
        if self.refuse_with is not None:
            self.kill()
            raise GateClosedError(self.refuse_with)
        assert frame.full or self.table_epoch == self.epoch, "the first table of a gate must be a full one"
        self.table_epoch = self.epoch
        self.frames.append(frame)
        self._take(frame)
        return GateApplied(frame.revision)

    async def check(self, epoch: int) -> None:
        await asyncio.sleep(0)
        if self.hangs and epoch == self.epoch:
            self.kill()
            raise GateClosedError("the gate did not answer and was killed")

    def _take(self, frame: GateApply) -> None:
        if frame.full:
            self.policies, self.devboxes = {}, {}
        for policy_id in frame.policies_removed:
            self.policies.pop(policy_id)
        for devbox_id in frame.devboxes_removed:
            self.devboxes.pop(devbox_id)
            self.journal.append(f"gate -{devbox_id}")
        self.policies.update((policy.id, policy) for policy in frame.policies)
        for devbox in frame.devboxes:
            if devbox.id not in self.devboxes:
                self.journal.append(f"gate +{devbox.id}")
            self.devboxes[devbox.id] = devbox
        for devbox in self.devboxes.values():
            assert devbox.policy_id in self.policies, f"{devbox.id} has a policy the gate does not know"
        self.journal.append("gate applied")


class FakeRuntime:
    """Sandboxes that are entries of a dictionary. ``check_start`` is asked before each start."""

    def __init__(self, journal: list[str], check_start: Callable[[SandboxSpec], None]) -> None:
        self.journal, self.check_start = journal, check_start
        self.sandboxes: dict[str, ObservedSandbox] = {}
        self.specs: dict[str, SandboxSpec] = {}
        self.executions: dict[tuple[str, str], ExecState] = {}
        self.start_s = 0.02
        self.refuse: dict[str, str] = {}
        self.command_status: dict[str, int] = {}
        self.endless: set[str] = set()
        self.stop_failures = 0
        self.start_errors: dict[str, Exception] = {}
        self.trouble = (0, False)
        """What every sandbox that runs is observed to have: processes killed for want of memory, a full disk."""
        self.stdin: dict[tuple[str, str], bytes] = {}
        self.end_time_ms = 1_000
        """When every execution that is over ended."""
        self.images: dict[str, int] = {}
        self.seal_turn = asyncio.Event()
        self.seal_turn.set()
        self.disks_made: dict[str, int] = {}
        """How often each devbox got a new, empty disk."""
        self.unread: set[str] = set()
        """Executions whose program does not read."""
        self.interrupted: list[str] = []
        self.files: dict[tuple[str, str], bytes] = {}
        self.open_streams = 0

    async def start(self, spec: SandboxSpec) -> None:
        self.check_start(spec)
        self.journal.append(f"start {spec.devbox_id}")
        if spec.devbox_id not in self.sandboxes:
            self.disks_made[spec.devbox_id] = self.disks_made.get(spec.devbox_id, 0) + 1
        await asyncio.sleep(self.start_s)
        if spec.devbox_id in self.refuse:
            raise SandboxError(self.refuse[spec.devbox_id])
        if spec.devbox_id in self.start_errors:
            raise self.start_errors[spec.devbox_id]
        self.specs[spec.devbox_id] = spec
        self.sandboxes[spec.devbox_id] = ObservedSandbox(
            spec.devbox_id, spec.generation, SandboxPhase.RUNNING, CHECK_PID, 0
        )

    async def stop(self, devbox_id: str) -> None:
        await asyncio.sleep(0)
        if self.stop_failures:
            self.stop_failures -= 1
            raise SandboxError("it does not die")
        self.journal.append(f"stop {devbox_id}")
        self.sandboxes.pop(devbox_id, None)

    async def halt(self, devbox_id: str) -> None:
        await asyncio.sleep(0)
        self.journal.append(f"halt {devbox_id}")
        if devbox_id in self.sandboxes:
            self.lose(devbox_id)
        for key, state in self.executions.items():
            if key[0] == devbox_id and state.status is ExecStatus.RUNNING:
                self.end_execution(*key, 137)

    async def seal(self, devbox_id: str, image_name: str) -> int:
        await self.seal_turn.wait()
        if devbox_id not in self.sandboxes:
            raise SandboxNotFoundError(f"Devbox {devbox_id} is not on this host.")
        return self.images.setdefault(image_name, 4096)

    async def seal_build(self, devbox_id: str, image_name: str) -> int:
        await self.halt(devbox_id)
        assert self.specs[devbox_id].is_builder
        self.journal.append(f"seal build {devbox_id}")
        return self.images.setdefault(image_name, 4096)

    async def find_image_size(self, image_name: str) -> int | None:
        await asyncio.sleep(0)
        return self.images.get(image_name)

    async def remove_image(self, image_name: str) -> None:
        await asyncio.sleep(0)
        self.images.pop(image_name, None)

    async def observe(self) -> Mapping[str, ObservedSandbox]:
        await asyncio.sleep(0)
        oom_kills, is_disk_full = self.trouble
        return {
            name: replace(sandbox, oom_kills=oom_kills, is_disk_full=is_disk_full)
            if sandbox.phase is SandboxPhase.RUNNING
            else sandbox
            for name, sandbox in self.sandboxes.items()
        }

    def lose(self, devbox_id: str, *, oom_kills: int = 0) -> None:
        """Its first process dies."""
        self.sandboxes[devbox_id] = replace(
            self.sandboxes[devbox_id], phase=SandboxPhase.EXITED, pid=None, oom_kills=oom_kills
        )

    async def exec_start(self, devbox_id: str, spec: ExecSpec) -> None:
        await asyncio.sleep(0)
        sandbox = self.sandboxes.get(devbox_id)
        if sandbox is None or sandbox.phase is not SandboxPhase.RUNNING:
            raise SandboxNotFoundError(f"Devbox {devbox_id} is not running on this host.")
        if (devbox_id, spec.execution_id) in self.executions:
            return
        self.journal.append(f"exec {devbox_id} {spec.command}")
        if spec.command in self.endless:
            state = ExecState(spec.execution_id, ExecStatus.RUNNING)
        else:
            state = ExecState(spec.execution_id, ExecStatus.COMPLETED, self.command_status.get(spec.command, 0))
        self.executions[devbox_id, spec.execution_id] = state

    async def exec_state(self, devbox_id: str, execution_id: str) -> ExecState:
        await asyncio.sleep(0)
        try:
            return self.executions[devbox_id, execution_id]
        except KeyError:
            raise ExecutionNotFoundError(f"There is no execution {execution_id}.") from None

    async def exec_wait(self, devbox_id: str, execution_id: str, timeout_s: float) -> ExecState:
        for _ in range(10):
            state = await self.exec_state(devbox_id, execution_id)
            if state.status is ExecStatus.COMPLETED:
                break
            await asyncio.sleep(timeout_s / 10)
        return state

    async def exec_ends(self, devbox_id: str) -> Mapping[str, int | None]:
        await asyncio.sleep(0)
        return {
            execution_id: None if state.status is ExecStatus.RUNNING else self.end_time_ms
            for (name, execution_id), state in self.executions.items()
            if name == devbox_id
        }

    async def exec_output(self, devbox_id: str, execution_id: str, stream: OutputStream, last_n: int) -> ExecOutput:
        await self.exec_state(devbox_id, execution_id)
        return ExecOutput(f"{stream.value} of {execution_id}\n", truncated=last_n < 1)

    async def exec_kill(self, devbox_id: str, execution_id: str, scope: KillScope = KillScope.GROUP) -> None:  # noqa: ARG002 - the protocol's
        state = await self.exec_state(devbox_id, execution_id)
        if state.status is ExecStatus.RUNNING:
            self.end_execution(devbox_id, execution_id, 137)

    def end_execution(self, devbox_id: str, execution_id: str, exit_status: int) -> None:
        """An endless command ends."""
        self.executions[devbox_id, execution_id] = ExecState(execution_id, ExecStatus.COMPLETED, exit_status)

    async def exec_stream(
        self, devbox_id: str, execution_id: str, stream: OutputStream, offset: int
    ) -> AsyncGenerator[bytes, None]:
        await self.exec_state(devbox_id, execution_id)

        async def follow() -> AsyncGenerator[bytes, None]:
            self.open_streams += 1
            try:
                yield f"{stream.value} of {execution_id}\n".encode()[offset:]
                while (await self.exec_state(devbox_id, execution_id)).status is ExecStatus.RUNNING:  # noqa: ASYNC110 - simulated
                    await asyncio.sleep(0.01)
            finally:
                self.open_streams -= 1

        return follow()

    async def exec_logs(self, devbox_id: str, execution_id: str | None, shell: str | None) -> tuple[LogLine, ...]:
        if execution_id is not None:
            await self.exec_state(devbox_id, execution_id)
        return tuple(
            LogLine(LogSource.EXEC, LogLevel.INFO, 1, name, shell_name=state.shell)
            for (box, name), state in self.executions.items()
            if box == devbox_id and execution_id in (None, name) and shell in (None, state.shell)
        )

    async def exec_interrupt(self, devbox_id: str, execution_id: str) -> None:
        await self.exec_state(devbox_id, execution_id)
        self.interrupted.append(execution_id)

    @asynccontextmanager
    async def read_file(
        self, devbox_id: str, path: str, user: SandboxUser | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        del user
        if (devbox_id, path) not in self.files:
            raise BoxFileError(FileProblem.MISSING, f"There is no {path}.")
        self.open_streams += 1
        try:
            yield _halves(self.files[devbox_id, path])
        finally:
            self.open_streams -= 1

    async def write_file(
        self, devbox_id: str, path: str, data: AsyncIterator[bytes], user: SandboxUser | None = None
    ) -> None:
        del user
        self.files[devbox_id, path] = b"".join([piece async for piece in data])

    async def exec_write_stdin(self, devbox_id: str, execution_id: str, data: bytes) -> None:
        await self.exec_state(devbox_id, execution_id)
        if execution_id in self.unread:
            await asyncio.sleep(3600)
        key = (devbox_id, execution_id)
        self.stdin[key] = self.stdin.get(key, b"") + data

    async def exec_close_stdin(self, devbox_id: str, execution_id: str) -> None:
        await self.exec_state(devbox_id, execution_id)

    async def teardown(self) -> None:
        for devbox_id in tuple(self.sandboxes):
            await self.stop(devbox_id)

    async def aclose(self) -> None:
        await asyncio.sleep(0)


async def _halves(data: bytes) -> AsyncIterator[bytes]:
    yield data[: len(data) // 2]
    yield data[len(data) // 2 :]


class FakeApi:
    """The api's side of the internal interface, with a sequence number for each change."""

    def __init__(self) -> None:
        self.revision = 0
        self.policies: dict[str, tuple[int, PolicyDocument]] = {}
        self.devboxes: dict[str, tuple[int, DevboxDocument]] = {}
        self.forgotten: dict[str, int] = {}
        self.objects: dict[str, bytes] = {}
        self.build_logs: dict[str, dict[tuple[int, int], BuildLogPart]] = {}
        self.is_down = False
        self.flows: list[FlowRecord] = []
        self.answer_s = 0.0
        """How long it takes over every answer."""
        self.nonsense: bytes | None = None
        """What it answers instead of a desired state."""
        self.reports: list[HostReport] = []
        self.observed: dict[str, ObservedDevbox] = {}
        self.enforced_at_s: dict[int, float] = {}
        self._changed = asyncio.Event()

    def put(self, *documents: PolicyDocument | DevboxDocument) -> int:
        """Want something; returns the revision in which it is wanted."""
        self.revision += 1
        for document in documents:
            if isinstance(document, PolicyDocument):
                self.policies[document.id] = (self.revision, document)
            else:
                self.devboxes[document.id] = (self.revision, document)
        return self._wake()

    def forget(self, devbox_id: str) -> int:
        """The devbox ended and need not be reported any more."""
        self.revision += 1
        del self.devboxes[devbox_id]
        self.forgotten[devbox_id] = self.revision
        return self._wake()

    def shut_down(self, devbox_id: str) -> int:
        """Want the devbox ended."""
        return self.put(msgspec.structs.replace(self.devboxes[devbox_id][1], phase=DesiredPhase.SHUTDOWN))

    def suspend(self, devbox_id: str) -> int:
        """Want the devbox suspended."""
        return self.put(msgspec.structs.replace(self.devboxes[devbox_id][1], phase=DesiredPhase.SUSPENDED))

    def resume(self, devbox_id: str) -> int:
        """Want the devbox running again."""
        document = self.devboxes[devbox_id][1]
        generation = document.generation + 1
        return self.put(msgspec.structs.replace(document, phase=DesiredPhase.RUNNING, generation=generation))

    @asynccontextmanager
    async def open_object(self, object_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes that were put into ``objects``, in two chunks."""
        await asyncio.sleep(0)
        if object_id not in self.objects:
            raise PeerRefusedError(f"there is no object {object_id}", status=404)
        yield _halves(self.objects[object_id])

    async def store_flows(self, batch: FlowBatch) -> None:
        """Kept in ``flows``."""
        await asyncio.sleep(0)
        self._check_up()
        self.flows += batch.records

    async def store_build_log(self, blueprint_id: str, part: BuildLogPart) -> None:
        """Kept in ``build_logs``, once."""
        await asyncio.sleep(0)
        self.build_logs.setdefault(blueprint_id, {})[part.attempt, part.number] = part

    def _wake(self) -> int:
        self._changed.set()
        self._changed = asyncio.Event()
        return self.revision

    async def fetch_desired_state(self, after: int, wait_s: float) -> DesiredState:
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(wait_s):
                while after == self.revision != 0:
                    self._check_up()
                    await self._changed.wait()
        except TimeoutError:
            pass
        self._check_up()
        is_full = after == 0
        since = -1 if is_full else after
        devboxes = tuple(document for number, document in self.devboxes.values() if number > since)
        of_devboxes = {devbox.policy_id for devbox in devboxes}
        return DesiredState(
            revision=self.revision,
            full=is_full,
            policies=tuple(
                document for number, document in self.policies.values() if number > since or document.id in of_devboxes
            ),
            devboxes=devboxes,
            forgotten=tuple(name for name, number in self.forgotten.items() if number > since and not is_full),
        )

    async def report(self, report: HostReport) -> None:
        await asyncio.sleep(0)
        self._check_up()
        self.reports.append(report)
        self.observed.update((devbox.id, devbox) for devbox in report.devboxes)
        now_s = asyncio.get_running_loop().time()
        for revision in range(1, report.enforced + 1):
            self.enforced_at_s.setdefault(revision, now_s)

    def _check_up(self) -> None:
        if self.is_down:
            raise PeerUnreachableError("the api is down")

    @property
    def enforced(self) -> int:
        return self.reports[-1].enforced if self.reports else 0

    def warnings(self) -> set[str]:
        """Codes of the warnings in the last report."""
        return {warning.code for warning in self.reports[-1].warnings} if self.reports else set()


@dataclass
class World:
    """One host without its agent."""

    state_dir: Path
    journal: list[str] = field(default_factory=list)
    driver: JournalDriver = field(init=False)
    runtime: FakeRuntime = field(init=False)
    api: FakeApi = field(default_factory=FakeApi)
    gate: FakeGate | None = None
    is_namespace_own: bool = True
    router: object = "first"
    violations: list[str] = field(default_factory=list)
    """Sandboxes that started too early. Kept, because the agent survives whatever a runtime raises."""

    def __post_init__(self) -> None:
        self.driver = JournalDriver(self.journal)
        self.runtime = FakeRuntime(self.journal, self.check_start)

    def check_start(self, spec: SandboxSpec) -> None:
        """The property: no sandbox starts that kernel and gate have not confirmed."""
        try:
            self._check_start(spec)
        except AssertionError as error:
            self.violations.append(str(error))
            raise

    def _check_start(self, spec: SandboxSpec) -> None:
        link = self.driver.state.devboxes.get(spec.devbox_id)
        assert link is not None, f"{spec.devbox_id} starts without a link"
        assert spec.netns.name == LAYOUT.devbox_namespace(link.slot), "it starts in another namespace than its own"
        before = self.runtime.sandboxes.get(spec.devbox_id)
        assert before is None or before.phase is SandboxPhase.EXITED, "two generations of it would live at once"
        assert self.gate is not None
        assert self.gate.state is GateState.OPEN, f"{spec.devbox_id} starts while the gate is closed"
        entry = self.gate.devboxes.get(spec.devbox_id)
        assert entry is not None, f"{spec.devbox_id} starts without a gate entry"
        assert entry.link == link.link
        assert self.driver.state.plans[link.policy_number].number == self.gate.policies[entry.policy_id].number

    def make_gate(self, events: GateEvents) -> FakeGate:
        self.gate = FakeGate(self.journal, events)
        return self.gate

    def records(self) -> RecordStore:
        """The records on disk, read anew."""
        return RecordStore(self.state_dir / "devboxes")

    @asynccontextmanager
    async def running_agent(self) -> AsyncIterator[Agent]:
        """An agent that works for the length of the block and is gone, as by SIGKILL, after it."""
        agent = Agent(
            AgentNeeds(
                driver=self.driver,
                kernel=InlineKernel(),
                layout=LAYOUT,
                context=HostContext(),
                make_gate=self.make_gate,
                runtime=self.runtime,
                api=self.api,
                objects=self.api,
                logs=self.api,
                flows=self.api,
                records=self.records(),
                url="unix:/run/test/agent.sock",
                identify_router=lambda: self.router,
                check_namespace=lambda _pid, _path: self.is_namespace_own,
            )
        )
        task = asyncio.ensure_future(agent.run())
        try:
            yield agent
            if task.done():
                task.result()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self.driver.forget()
            assert not self.violations

    async def until(self, condition: Callable[[], bool], *, timeout_s: float = 120) -> None:
        """Until ``condition`` holds; AssertionError with the journal when it never does."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not condition():
            assert loop.time() < deadline_s, "\n".join(["it never came true", *self.journal[-60:]])
            await asyncio.sleep(0.002)

    async def run_command(self, devbox_id: str, execution_id: str, command: str) -> None:
        """Have the runtime run a command, as for the API."""
        await self.runtime.exec_start(devbox_id, ExecSpec(execution_id, command))

    def phase(self, devbox_id: str) -> str:
        """What was last reported of a devbox."""
        observed = self.api.observed.get(devbox_id)
        return "" if observed is None else observed.phase.value

    async def until_phase(self, devbox_id: str, phase: str) -> None:
        await self.until(lambda: self.phase(devbox_id) == phase)
