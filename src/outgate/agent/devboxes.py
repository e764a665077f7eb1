"""Every devbox of this host on its way to what is wanted of it.

Each devbox that has something to do is driven by one task, which asks :func:`decide_next_step` and does as
it is told until there is nothing left to do. Links and rules are the enforcer's business, waited for without
holding anything up; sandbox work runs in these tasks, some of it at the same time.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from outgate.agent.boot import namespace_path
from outgate.agent.health import WarningCode
from outgate.agent.observation import is_in_namespace
from outgate.agent.reconcile import Facts, Step, decide_next_step
from outgate.agent.record import DevboxRecord, Stage
from outgate.agent.steps import RETRY_S, Host, Steps, observe_record, placement_of
from outgate.model.desired import ObservedDevbox
from outgate.runtime.base import ObservedSandbox, SandboxError

NamespaceCheck = Callable[[int, Path], bool]
"""Whether the process is in the network namespace that is bound at the path."""


class Devboxes:
    """The devboxes of this host. Belongs to the event loop's thread. Bounded by the slots of the layout."""

    def __init__(self, host: Host, check_namespace: NamespaceCheck = is_in_namespace) -> None:
        self._host, self._check_namespace = host, check_namespace
        self._steps = Steps(host)
        self._log = structlog.get_logger("devboxes")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._await_round: set[str] = set()

    def kick(self, devbox_id: str) -> None:
        """Something about the devbox changed: drive it, or let its task look again."""
        if devbox_id in self._tasks:
            self._wakes[devbox_id].set()
            return
        self._wakes[devbox_id] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._drive(devbox_id))
        self._tasks[devbox_id] = task
        task.add_done_callback(lambda done: self._note_end(devbox_id, done))

    def kick_all(self) -> None:
        """Drive every devbox that is wanted, remembered or running."""
        for devbox_id in self._all_ids():
            self.kick(devbox_id)

    def kick_those_with_work(self) -> None:
        """Drive those for which there is something to do, after an observation."""
        for devbox_id in self._all_ids():
            if devbox_id not in self._tasks and not self._is_next(devbox_id, Step.NOTHING):
                self.kick(devbox_id)

    def _all_ids(self) -> list[str]:
        remembered = (record.devbox_id for record in self._host.records.all())
        return sorted({*self._host.desired.devboxes, *remembered, *self._host.sandboxes})

    def on_round(self) -> None:
        """The enforcer finished a round: those who wait for one look again."""
        for devbox_id in self._await_round:
            self._wakes[devbox_id].set()

    def adopt_all(self) -> None:
        """Tell the enforcer of everything that had a place before this agent started, before its first round."""
        for record in self._host.records.all():
            placement = placement_of(self._host.desired.devboxes.get(record.devbox_id), record)
            if placement is not None:
                self._host.enforcer.adopt(placement)

    def observed(self) -> tuple[ObservedDevbox, ...]:
        """Every devbox that there is something to say about."""
        records = self._host.records.all()
        return tuple(observed for record in records if (observed := observe_record(record)) is not None)

    async def aclose(self) -> None:
        """Let go of everything. Devboxes stay as they are."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, devbox_id: str) -> None:
        wake, health = self._wakes[devbox_id], self._host.health
        while True:
            wake.clear()
            next_step = decide_next_step(self._facts(devbox_id))
            if next_step.step is Step.NOTHING:
                return
            if next_step.step in (Step.FILTER, Step.UNFILTER):
                self._await_round.add(devbox_id)
            try:
                await self._steps.carry_out(devbox_id, next_step, wake, lambda step: self._is_next(devbox_id, step))
            except SandboxError as error:
                health.raise_warning(WarningCode.RUNTIME_FAILING, f"{devbox_id}: {error.message}")
                await asyncio.sleep(RETRY_S)
            except OSError as error:
                health.raise_warning(WarningCode.STATE_UNWRITABLE, f"The agent cannot write its state: {error}")
                await asyncio.sleep(RETRY_S)
            else:
                health.clear(WarningCode.STATE_UNWRITABLE)
            finally:
                self._await_round.discard(devbox_id)

    def _note_end(self, devbox_id: str, task: asyncio.Task[None]) -> None:
        wake = self._wakes.pop(devbox_id)
        del self._tasks[devbox_id]
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            # A mistake of ours about one devbox must not take the others along; it is tried again, seldom.
            self._log.error("devbox_drive_failed", devbox_id=devbox_id, exc_info=error)
            asyncio.get_running_loop().call_later(5 * RETRY_S, self.kick, devbox_id)
        elif wake.is_set():
            self.kick(devbox_id)  # woken between its last decision and now
        self._follow_entrypoint(devbox_id)

    def _follow_entrypoint(self, devbox_id: str) -> None:
        desired, record = self._host.desired.devboxes.get(devbox_id), self._host.records.get(devbox_id)
        if desired is not None and record is not None and record.stage is Stage.RUNNING:
            self._host.entrypoints.follow(desired, record)

    def _is_next(self, devbox_id: str, step: Step) -> bool:
        return decide_next_step(self._facts(devbox_id)).step is step

    def _facts(self, devbox_id: str) -> Facts:
        host = self._host
        desired, record = host.desired.devboxes.get(devbox_id), host.records.get(devbox_id)
        sandbox = host.sandboxes.get(devbox_id)
        placement = placement_of(desired, record)
        return Facts(
            desired=desired,
            record=record,
            sandbox=sandbox,
            is_filtered=placement is not None and host.enforcer.is_filtered(placement),
            is_linked=host.enforcer.is_linked(devbox_id),
            is_namespace_own=self._is_namespace_own(record, sandbox),
            is_entrypoint_over=host.entrypoints.is_over(devbox_id),
            is_entrypoint_killed=host.entrypoints.is_killed(devbox_id),
        )

    def _is_namespace_own(self, record: DevboxRecord | None, sandbox: ObservedSandbox | None) -> bool:
        if record is None or record.slot is None or sandbox is None or sandbox.pid is None:
            return True
        return self._check_namespace(sandbox.pid, namespace_path(self._host.layout, record.slot))
