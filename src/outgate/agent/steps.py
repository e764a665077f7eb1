"""Carries out one step of reconciliation for one devbox."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from outgate import clock
from outgate.agent.boot import Boot, run_boot, run_suspend_commands, sandbox_spec
from outgate.agent.build_log import BuildLog, LogTarget
from outgate.agent.builds import Build, first_spec, remove_images_of, run_build
from outgate.agent.commands import BootInterruptedError, Commands
from outgate.agent.desired import DesiredTable
from outgate.agent.enforcer import Enforcer
from outgate.agent.entrypoints import Entrypoints
from outgate.agent.health import Health, WarningCode
from outgate.agent.mounts import ObjectSource
from outgate.agent.observation import Sandboxes
from outgate.agent.outcome import failure, is_disk_full_error, outcome_of, start_failure
from outgate.agent.reconcile import START_ATTEMPTS_MAX, NextStep, Step
from outgate.agent.record import DevboxRecord, Outcome, RecordStore, Stage
from outgate.agent.target import Placement
from outgate.dataplane.apply_steps import ApplyStep, StepObserver, ignore_step
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import InvalidValueError
from outgate.model.desired import BuildDocument, DevboxDocument, ObservedDevbox, ObservedPhase
from outgate.runtime.base import ObservedSandbox, Runtime, SandboxError, SandboxSpec

_STARTS_MAX: Final = 2 * (os.cpu_count() or 1)
"""Sandboxes being started at once: starting is CPU work, more of it at once only makes each later."""
RETRY_S: Final = 1.0
"""Before a step that failed, or could not be done, is tried again."""
_LINK_FAILURES_MAX: Final = 3

IsStillNext = Callable[[Step], bool]
"""Whether a step is still what reconciliation wants next of this devbox."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the steps work with. ``on_change`` hears of every new observed phase."""

    records: RecordStore
    desired: DesiredTable
    enforcer: Enforcer
    runtime: Runtime
    sandboxes: Sandboxes
    entrypoints: Entrypoints
    objects: ObjectSource
    logs: LogTarget
    layout: NetworkLayout
    health: Health
    on_change: Callable[[ObservedDevbox], None]
    on_step: StepObserver = ignore_step


class Steps:
    """The steps of all devboxes. Belongs to the event loop's thread.

    ``wake`` of each method is set when something about the devbox changed: the desired state, or a finished
    round of the enforcer. Raises :class:`SandboxError` and OSError; the step is to be tried again then.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._log = structlog.get_logger("devboxes")
        self._start_turns = asyncio.Semaphore(_STARTS_MAX)
        self._link_failures: dict[str, int] = {}

    async def carry_out(
        self, devbox_id: str, next_step: NextStep, wake: asyncio.Event, is_still_next: IsStillNext
    ) -> None:
        """Do one step."""
        host = self._host
        desired, record = host.desired.devboxes.get(devbox_id), host.records.get(devbox_id)
        self._log.debug("step", devbox_id=devbox_id, step=next_step.step.name.lower())
        if desired is not None and next_step.step is Step.PLACE:
            await self._place(desired)
        elif desired is not None and record is not None and next_step.step is Step.FILTER:
            await self._filter(desired, record, wake)
        elif desired is not None and record is not None and next_step.step is Step.START:
            await self._start(desired, record, wake, is_still_next)
        elif desired is not None and record is not None and next_step.step is Step.SUSPEND:
            await self._suspend(desired, record, wake)
        elif desired is not None and record is not None and next_step.step is Step.REST:
            # Once more: one whose first process died by itself has not been halted, and has its groups still.
            await self._halt(devbox_id)
            self._put(record, stage=Stage.SUSPENDED, slot=None, generation=desired.generation)
        elif desired is not None and record is not None and next_step.step is Step.REBOOT:
            await self._reboot(desired, record)
        elif next_step.reason is not None:
            self._end(devbox_id, outcome_of(next_step.reason, clock.wall_ms()))
        else:
            await self._take_apart(devbox_id, record, next_step.step, wake)

    async def _take_apart(self, devbox_id: str, record: DevboxRecord | None, step: Step, wake: asyncio.Event) -> None:
        match step:
            case Step.CLEAR_SANDBOX:
                await self._clear_sandbox(devbox_id)
            case Step.HALT:
                await self._halt(devbox_id)
            case Step.RETRY if record is not None:
                self._put(record, stage=Stage.PLACED)
            case Step.UNFILTER:
                self._host.enforcer.displace(devbox_id)
                await wake.wait()
            case Step.FINISH if record is not None:
                self._put(record, stage=Stage.ENDED, slot=None)
            case Step.FORGET:
                if record is not None and record.is_build:
                    # Its blueprint failed or was deleted: nobody can start from what it made any more.
                    await remove_images_of(self._host.runtime, devbox_id, is_complete=False)
                self._host.records.remove(devbox_id)
                self._host.on_step(ApplyStep.RECORD_REMOVED)
                self._link_failures.pop(devbox_id, None)

    async def _place(self, desired: DevboxDocument) -> None:
        slot = await self._find_slot()
        if slot is None:
            return
        self._store(
            DevboxRecord(
                devbox_id=desired.id,
                account_id=desired.account_id,
                policy_id=desired.policy_id,
                generation=desired.generation,
                stage=Stage.PLACED,
                slot=slot,
                time_ms=clock.wall_ms(),
                is_build=desired.build is not None,
            )
        )

    async def _find_slot(self) -> int | None:
        """A free slot; None, after a while, when there is none."""
        host = self._host
        slot = host.records.find_free_slot(host.layout.slots_max)
        if slot is None:
            text = f"All {host.layout.slots_max} places for devboxes are taken."
            host.health.raise_warning(WarningCode.SLOTS_EXHAUSTED, text)
            await asyncio.sleep(RETRY_S)
            return None
        host.health.clear(WarningCode.SLOTS_EXHAUSTED)
        return slot

    async def _reboot(self, desired: DevboxDocument, record: DevboxRecord) -> None:
        slot = record.slot if record.slot is not None else await self._find_slot()
        if slot is None:
            return
        # A start of the same generation that was broken off keeps its count: its executions keep their ids.
        attempts = record.attempts if record.generation == desired.generation else 0
        self._put(
            record,
            stage=Stage.PLACED,
            generation=desired.generation,
            policy_id=desired.policy_id,
            slot=slot,
            attempts=attempts,
        )

    async def _filter(self, desired: DevboxDocument, record: DevboxRecord, wake: asyncio.Event) -> None:
        if desired.policy_id != record.policy_id:
            record = self._put(record, policy_id=desired.policy_id)
        placement = placement_of(desired, record)
        if placement is None:
            return
        self._host.enforcer.place(placement)
        await wake.wait()
        sentence = self._host.enforcer.failures.get(desired.id)
        if sentence is None:
            self._link_failures.pop(desired.id, None)
            return
        failures = self._link_failures[desired.id] = self._link_failures.get(desired.id, 0) + 1
        if failures >= _LINK_FAILURES_MAX:
            self._end(desired.id, failure(f"Its network link could not be made. {sentence}", clock.wall_ms()))

    async def _start(
        self, desired: DevboxDocument, record: DevboxRecord, wake: asyncio.Event, is_still_next: IsStillNext
    ) -> None:
        host = self._host
        async with self._start_turns:
            if record.slot is None or not is_still_next(Step.START):
                return  # it waited for its turn, and something else is wanted by now
            spec = sandbox_spec(desired, host.layout, record.slot)
            record = self._put(record, stage=Stage.STARTING, attempts=record.attempts + 1)
            with host.sandboxes.working_on(desired.id):
                try:
                    await host.runtime.start(first_spec(desired, spec))
                except (SandboxError, InvalidValueError, OSError) as error:
                    self._note_failed_start(record, error)
                    return
                host.on_step(ApplyStep.SANDBOX_STARTED)
                host.health.clear(WarningCode.RUNTIME_FAILING)
                host.sandboxes.started(desired.id, desired.generation)
        if desired.build is not None:
            await self._build(desired, desired.build, record, spec, wake)
            return
        await self._launch(desired, record, wake)

    async def _build(
        self,
        desired: DevboxDocument,
        document: BuildDocument,
        record: DevboxRecord,
        spec: SandboxSpec,
        wake: asyncio.Event,
    ) -> None:
        host = self._host
        placement = placement_of(desired, record)
        build = Build(
            devbox=desired,
            document=document,
            record=record,
            spec=spec,
            commands=self._commands(desired, wake),
            objects=host.objects,
            sandboxes=host.sandboxes,
            log=BuildLog(host.logs, desired.id, record.attempts),
            observe=lambda: self._observe(desired.id),
            is_filtered=lambda: placement is not None and host.enforcer.is_filtered(placement),
        )
        try:
            outcome = await run_build(build)
        except BootInterruptedError:
            return
        self._end(desired.id, outcome)

    def _note_failed_start(self, record: DevboxRecord, error: SandboxError | InvalidValueError | OSError) -> None:
        """End the devbox. One whose disk is in use is tried again (``error`` is raised) before it is given up."""
        may_pass = not isinstance(error, InvalidValueError)
        is_late = record.attempts >= START_ATTEMPTS_MAX
        if may_pass and record.keeps_disk and not is_late:
            raise error
        if isinstance(error, OSError) and not is_disk_full_error(error):
            raise error
        self._end(record.devbox_id, start_failure(error, clock.wall_ms()))

    async def _launch(self, desired: DevboxDocument, record: DevboxRecord, wake: asyncio.Event) -> None:
        commands = self._commands(desired, wake)
        boot = Boot(desired, record, commands, self._host.objects, lambda: self._observe(desired.id))
        try:
            outcome = await run_boot(boot)
        except BootInterruptedError:
            return
        except (SandboxError, InvalidValueError) as error:
            outcome = failure(f"A command of its start could not be run. {error.message}", clock.wall_ms())
        if outcome is not None:
            self._end(desired.id, outcome)
            return
        self._put(record, stage=Stage.RUNNING, keeps_disk=True)

    def _commands(self, desired: DevboxDocument, wake: asyncio.Event) -> Commands:
        """To run commands as long as the devbox is wanted in this phase and generation."""

        def is_wanted() -> bool:
            now = self._host.desired.devboxes.get(desired.id)
            return now is not None and (now.phase, now.generation) == (desired.phase, desired.generation)

        return Commands(self._host.runtime, desired.id, wake, is_wanted)

    async def _observe(self, devbox_id: str) -> ObservedSandbox | None:
        await self._host.sandboxes.observe()
        return self._host.sandboxes.get(devbox_id)

    async def _suspend(self, desired: DevboxDocument, record: DevboxRecord, wake: asyncio.Event) -> None:
        # Written down first: an agent that dies among the commands does not run them again.
        record = self._put(record, stage=Stage.SUSPENDING)
        await run_suspend_commands(desired, record, self._commands(desired, wake))

    async def _halt(self, devbox_id: str) -> None:
        host = self._host
        host.entrypoints.forget(devbox_id)
        with host.sandboxes.working_on(devbox_id):
            await host.runtime.halt(devbox_id)
            host.sandboxes.halted(devbox_id)
        host.health.clear(WarningCode.RUNTIME_FAILING)

    async def _clear_sandbox(self, devbox_id: str) -> None:
        host = self._host
        host.entrypoints.forget(devbox_id)
        with host.sandboxes.working_on(devbox_id):
            await host.runtime.stop(devbox_id)
            host.on_step(ApplyStep.SANDBOX_STOPPED)
            host.sandboxes.stopped(devbox_id)
        host.health.clear(WarningCode.RUNTIME_FAILING)

    def _end(self, devbox_id: str, outcome: Outcome) -> None:
        record = self._host.records.get(devbox_id)
        if record is None:
            desired = self._host.desired.devboxes[devbox_id]  # an end without a record is decided for wanted ones only
            record = DevboxRecord(
                devbox_id=devbox_id,
                account_id=desired.account_id,
                policy_id=desired.policy_id,
                generation=desired.generation,
                stage=Stage.ENDING,
                slot=None,
                time_ms=outcome.time_ms,
                is_build=desired.build is not None,
            )
        self._log.info("devbox_ending", devbox_id=devbox_id, phase=outcome.phase.value, detail=outcome.detail)
        self._put(record, stage=Stage.ENDING, outcome=outcome)

    def _put(self, record: DevboxRecord, **changes: Any) -> DevboxRecord:
        changed = msgspec.structs.replace(record, time_ms=clock.wall_ms(), **changes)
        self._store(changed)
        return changed

    def _store(self, record: DevboxRecord) -> None:
        self._host.records.put(record)
        self._host.on_step(ApplyStep.RECORDED)
        observed = observe_record(record)
        if observed is not None:
            self._host.on_change(observed)


def placement_of(desired: DevboxDocument | None, record: DevboxRecord | None) -> Placement | None:
    """Where a devbox belongs in the network; None for one without a slot."""
    if record is None or record.slot is None:
        return None
    policy_id = record.policy_id if desired is None else desired.policy_id
    return Placement(record.devbox_id, record.account_id, policy_id, record.slot)


_PHASES: Final = {
    Stage.PLACED: ObservedPhase.PROVISIONING,
    Stage.STARTING: ObservedPhase.INITIALIZING,
    Stage.RUNNING: ObservedPhase.RUNNING,
    Stage.SUSPENDING: ObservedPhase.SUSPENDING,
    Stage.SUSPENDED: ObservedPhase.SUSPENDED,
}


def observe_record(record: DevboxRecord) -> ObservedDevbox | None:
    """What a record says of its devbox; None while a wanted shutdown is on its way (it still is what it was)."""
    phase = _PHASES.get(record.stage)
    if phase is not None:
        return ObservedDevbox(record.devbox_id, phase, record.time_ms, generation=record.generation)
    outcome = record.outcome
    if outcome is None or (record.stage is Stage.ENDING and outcome.phase is ObservedPhase.SHUTDOWN):
        return None
    return ObservedDevbox(
        record.devbox_id,
        outcome.phase,
        outcome.time_ms,
        generation=record.generation,
        failure_reason=outcome.failure_reason,
        shutdown_reason=outcome.shutdown_reason,
        detail=outcome.detail,
    )
