"""Carries out one step of reconciliation for one devbox."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from outgate import clock
from outgate.agent.boot import BootInterruptedError, run_launch_commands, sandbox_spec
from outgate.agent.desired import DesiredTable
from outgate.agent.enforcer import Enforcer
from outgate.agent.entrypoints import Entrypoints
from outgate.agent.health import Health, WarningCode
from outgate.agent.observation import Sandboxes
from outgate.agent.outcome import failure, outcome_of
from outgate.agent.reconcile import NextStep, Step
from outgate.agent.record import DevboxRecord, Outcome, RecordStore, Stage
from outgate.agent.target import Placement
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import InvalidValueError
from outgate.model.desired import DesiredPhase, DevboxDocument, ObservedDevbox, ObservedPhase
from outgate.runtime.base import Runtime, SandboxError

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
    layout: NetworkLayout
    health: Health
    on_change: Callable[[ObservedDevbox], None]


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
        elif desired is not None and record is not None and next_step.step is Step.REBOOT:
            self._put(record, stage=Stage.PLACED, generation=desired.generation, attempts=0)
        elif next_step.reason is not None:
            self._end(devbox_id, outcome_of(next_step.reason, clock.wall_ms()))
        else:
            await self._take_apart(devbox_id, record, next_step.step, wake)

    async def _take_apart(self, devbox_id: str, record: DevboxRecord | None, step: Step, wake: asyncio.Event) -> None:
        match step:
            case Step.CLEAR_SANDBOX:
                await self._clear_sandbox(devbox_id)
            case Step.RETRY if record is not None:
                self._put(record, stage=Stage.PLACED)
            case Step.UNFILTER:
                self._host.enforcer.displace(devbox_id)
                await wake.wait()
            case Step.FINISH if record is not None:
                self._put(record, stage=Stage.ENDED, slot=None)
            case Step.FORGET:
                self._host.records.remove(devbox_id)
                self._link_failures.pop(devbox_id, None)

    async def _place(self, desired: DevboxDocument) -> None:
        host = self._host
        slot = host.records.find_free_slot(host.layout.slots_max)
        if slot is None:
            text = f"All {host.layout.slots_max} places for devboxes are taken."
            host.health.raise_warning(WarningCode.SLOTS_EXHAUSTED, text)
            await asyncio.sleep(RETRY_S)
            return
        host.health.clear(WarningCode.SLOTS_EXHAUSTED)
        self._store(
            DevboxRecord(
                devbox_id=desired.id,
                account_id=desired.account_id,
                policy_id=desired.policy_id,
                generation=desired.generation,
                stage=Stage.PLACED,
                slot=slot,
                time_ms=clock.wall_ms(),
            )
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
                    await host.runtime.start(spec)
                except (SandboxError, InvalidValueError) as error:
                    self._end(desired.id, failure(f"Its sandbox did not start. {error.message}", clock.wall_ms()))
                    return
                host.sandboxes.started(desired.id, desired.generation)
        await self._launch(desired, record, wake)

    async def _launch(self, desired: DevboxDocument, record: DevboxRecord, wake: asyncio.Event) -> None:
        def is_wanted() -> bool:
            now = self._host.desired.devboxes.get(desired.id)
            return now is not None and now.phase is DesiredPhase.RUNNING and now.generation == desired.generation

        try:
            outcome = await run_launch_commands(self._host.runtime, desired, wake, is_wanted)
        except BootInterruptedError:
            return
        except (SandboxError, InvalidValueError) as error:
            outcome = failure(f"A launch command could not be run. {error.message}", clock.wall_ms())
        if outcome is not None:
            self._end(desired.id, outcome)
            return
        self._put(record, stage=Stage.RUNNING)

    async def _clear_sandbox(self, devbox_id: str) -> None:
        host = self._host
        host.entrypoints.forget(devbox_id)
        with host.sandboxes.working_on(devbox_id):
            await host.runtime.stop(devbox_id)
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
            )
        self._log.info("devbox_ending", devbox_id=devbox_id, phase=outcome.phase.value, detail=outcome.detail)
        self._put(record, stage=Stage.ENDING, outcome=outcome)

    def _put(self, record: DevboxRecord, **changes: Any) -> DevboxRecord:
        changed = msgspec.structs.replace(record, time_ms=clock.wall_ms(), **changes)
        self._store(changed)
        return changed

    def _store(self, record: DevboxRecord) -> None:
        self._host.records.put(record)
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
