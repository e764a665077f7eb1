"""Brings gate and kernel to the wanted target, one round at a time.

All gate and kernel work of the host goes through here, serialised by being one loop. Requests only change
what is wanted; a round takes everything that is wanted by then, so ten devboxes that start and a policy
update that comes in between are two rounds, not eleven, and the update waits for at most
``LINK_CHANGES_MAX`` links. Sandbox work never happens here.

When is a revision *enforced*? When the kernel has it and the gate cannot allow more than it:

* the gate answered for it, or
* the gate is closed (see :mod:`outgate.agent.gate_process`): its process is gone and with it every flow it
  relayed, or it has an empty table. The narrowest table there is certainly is no wider than the revision; and
  the first table the next gate gets is this revision or a newer one. What the revision newly allows by name
  works only then; the warning ``gate_down`` says so.

A devbox is *filtered* only when both halves have confirmed it, the gate in its present life.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

import structlog

from outgate import clock
from outgate.agent.aborts import Aborts
from outgate.agent.gate_process import GateClosedError, GateState
from outgate.agent.health import Health, WarningCode
from outgate.agent.kernel_thread import KernelThread
from outgate.agent.measuring import AgentCounts
from outgate.agent.target import (
    EnforcedPolicy,
    GateView,
    Placement,
    Target,
    bound_link_changes,
    deny_policy,
    gate_delta,
    gate_view,
    prepare_enforcement,
    revoked_devboxes,
    router_state,
)
from outgate.core.compile import QUICK_RULES_MAX
from outgate.dataplane.apply_steps import ApplyStep, StepObserver, ignore_step
from outgate.dataplane.driver import Applied, Driver, DriverError, RouterState
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import InvalidValueError
from outgate.model.addresses import IPAddress
from outgate.model.desired import GateApplied, GateApply, PolicyDocument
from outgate.model.flow import HostContext

_RETRY_DELAYS_S: Final = (0.05, 0.2, 0.5, 1.0, 2.0)
_CUT_OFF_AFTER: Final = 3
"""Failed rounds after which policies that could not be brought up to date are cut off."""


class Gate(Protocol):
    """What the enforcer needs of the gate process."""

    state: GateState
    epoch: int

    async def apply(self, frame: GateApply) -> GateApplied:
        """Put a table in force. Raises :class:`GateClosedError`."""

    async def check(self, epoch: int) -> None:
        """See that the gate of ``epoch``, which has a table, answers. Raises :class:`GateClosedError`."""


class EnforcerEvents(Protocol):
    """Who hears of progress."""

    def on_enforced(self) -> None:
        """``enforced`` went up."""

    def on_round(self) -> None:
        """Devboxes may have become filtered, or lost their links."""


class Enforcer:
    """The one place that speaks to driver and gate. Belongs to the event loop's thread."""

    def __init__(
        self,
        *,
        driver: Driver,
        kernel: KernelThread,
        gate: Gate,
        layout: NetworkLayout,
        health: Health,
        events: EnforcerEvents,
        context: HostContext,
        on_step: StepObserver = ignore_step,
        on_target: Callable[[Target], None] = lambda _target: None,
        counts: AgentCounts | None = None,
    ) -> None:
        """``on_target`` hears of every target before the kernel does."""
        self._on_step, self._on_target = on_step, on_target
        self._driver, self._thread, self._gate, self._layout = driver, kernel, gate, layout
        self._health, self._events, self._context = health, events, context
        self._counts = counts or AgentCounts()
        self._aborts = Aborts(driver, self._live_grants)
        self._log = structlog.get_logger("enforcer")
        self._work = asyncio.Event()
        self._wanted_policies: Mapping[str, PolicyDocument] = {}
        self._wanted_placements: dict[str, Placement] = {}
        self._wanted_revision = 0
        self._is_wanted_known = False
        self._prepared: dict[str, tuple[PolicyDocument, EnforcedPolicy]] = {}
        self._adopted: set[str] = set()
        self._kernel: Target | None = None
        self._kernel_state = RouterState()
        self._by_slot: Mapping[int, Placement] = {}
        self._gate_view: tuple[int, GateView] | None = None
        self._host_addresses = Target().host_addresses
        self._must_set = False
        self._failed_rounds = 0
        self.enforced = 0
        self.failures: Mapping[str, str] = {}
        """Devboxes that the last round could not link, with a sentence each."""

    # What is wanted

    def want(self, revision: int, policies: Mapping[str, PolicyDocument]) -> None:
        """Policies as of ``revision``. Nothing is touched before this was called once."""
        self._wanted_revision, self._wanted_policies = revision, dict(policies)
        self._is_wanted_known = True
        self._work.set()

    def place(self, placement: Placement) -> None:
        """Have a devbox linked and filtered."""
        if self._wanted_placements.get(placement.devbox_id) != placement:
            self._wanted_placements[placement.devbox_id] = placement
            self._work.set()

    def adopt(self, placement: Placement) -> None:
        """As :meth:`place`, for a devbox that ran before this agent did: the gate takes over its pins at once."""
        self._adopted.add(placement.devbox_id)
        self.place(placement)

    def displace(self, devbox_id: str) -> None:
        """Take a devbox's link and gate entry away."""
        if self._wanted_placements.pop(devbox_id, None) is not None:
            self._work.set()

    def look_again(self) -> None:
        """The gate opened or closed: see what it must be told."""
        self._work.set()

    def set_again(self) -> None:
        """The kernel is not as it was set: have it set again even if nothing else is wanted."""
        self._must_set = True
        self._work.set()

    # What is

    def is_filtered(self, placement: Placement) -> bool:
        """Driver and gate have both confirmed the devbox in just this place."""
        devbox_id = placement.devbox_id
        if self._kernel is None or self._kernel.placements.get(devbox_id) != placement or devbox_id in self.failures:
            return False
        known = self._known_gate_view()
        entry = None if known is None else known.devboxes.get(devbox_id)
        return entry is not None and entry.policy_id == placement.policy_id

    def find_placement(self, slot: int) -> tuple[Placement, PolicyDocument] | None:
        """Who has a slot in the kernel, and by which policy."""
        if self._kernel is None:
            return None
        placement = self._by_slot.get(slot)
        return None if placement is None else (placement, self._kernel.policies[placement.policy_id].document)

    @property
    def is_ready(self) -> bool:
        """Kernel and gate have a table each, in this life of both."""
        return self._kernel is not None and self._known_gate_view() is not None

    def is_linked(self, devbox_id: str) -> bool:
        """Kernel or gate may have something of the devbox. True of every devbox before the first round."""
        if devbox_id in self._wanted_placements or self._kernel is None:
            return True
        known = self._known_gate_view()
        return devbox_id in self._kernel.placements or (known is not None and devbox_id in known.devboxes)

    def _known_gate_view(self) -> GateView | None:
        """The table of the gate that runs now; None when it has none."""
        if self._gate.state is GateState.CLOSED or self._gate_view is None:
            return None
        epoch, view = self._gate_view
        return view if epoch == self._gate.epoch else None

    async def check_gate(self) -> None:
        """Find out about a gate that hangs, also when there is nothing to tell it: it is ended then."""
        if self._known_gate_view() is None:
            return
        try:
            await self._gate.check(self._gate.epoch)
        except GateClosedError as error:
            self._log.warning("gate_check_failed", why=error.message)

    # Rounds

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._wait_for_work()
            self._work.clear()
            if self._is_wanted_known:
                await self._attempt_round()

    async def _wait_for_work(self) -> None:
        """Until something new is wanted or, after a failure, until it is time to try again."""
        if not self._failed_rounds:
            await self._work.wait()
            return
        delay_s = _RETRY_DELAYS_S[min(self._failed_rounds, len(_RETRY_DELAYS_S)) - 1]
        try:
            async with asyncio.timeout(delay_s):
                await self._work.wait()
        except TimeoutError:
            return

    async def _attempt_round(self) -> None:
        try:
            await self._round()
        except (DriverError, InvalidValueError, OSError) as error:
            self._failed_rounds += 1
            self._counts.rounds_failed += 1
            self._log.error("round_failed", error=str(error), failed_rounds=self._failed_rounds)
            self._health.raise_warning(
                WarningCode.KERNEL_FAILING,
                f"The kernel refused revision {self._wanted_revision}; revision {self.enforced} is in force. {error}",
            )
            return
        self._failed_rounds = 0
        self._health.clear(WarningCode.KERNEL_FAILING)

    async def _round(self) -> None:
        began_s, kernel, gate_view = clock.monotonic_s(), self._kernel, self._gate_view
        wanted = await self._wanted_target()
        linked = self._adopted if self._kernel is None else self._kernel.placements.keys()
        target = bound_link_changes(linked, wanted)
        await self._tell_gate(target, target.placements.keys() & linked)
        applied = await self._set_kernel(target)
        await self._tell_gate(target, target.placements.keys() - applied.failures.keys())
        if self._kernel is not kernel or self._gate_view is not gate_view:
            self._counts.apply_round.observe(clock.monotonic_s() - began_s)
        self._finish_round(target, is_whole=target is wanted)

    async def _wanted_target(self) -> Target:
        placements = {
            devbox_id: placement
            for devbox_id, placement in self._wanted_placements.items()
            if placement.policy_id in self._wanted_policies
        }
        revision = self._wanted_revision
        documents = [self._wanted_policies[policy_id] for policy_id in {p.policy_id for p in placements.values()}]
        policies = {document.id: await self._prepare(document) for document in documents}
        self._prepared = {key: value for key, value in self._prepared.items() if key in policies}
        if self._failed_rounds >= _CUT_OFF_AFTER:
            policies = self._cut_off_changed(policies)
        else:
            self._health.clear(WarningCode.POLICY_CUT_OFF)
        self._report_denied(policies)
        self._report_reporting(policies)
        return Target(revision, policies, placements, self._host_addresses)

    async def _prepare(self, document: PolicyDocument) -> EnforcedPolicy:
        """Compiled once per revision; many rules in a thread, because a thousand that overlap take their time."""
        known = self._prepared.get(document.id)
        if known is not None and known[0] == document:
            return known[1]
        policy = (
            await self._thread.run(lambda: prepare_enforcement(document, self._context))
            if len(document.allowed_cidrs) > QUICK_RULES_MAX
            else prepare_enforcement(document, self._context)
        )
        self._prepared[document.id] = (document, policy)
        return policy

    def _cut_off_changed(self, policies: Mapping[str, EnforcedPolicy]) -> dict[str, EnforcedPolicy]:
        """The last resort of a kernel that refuses an update: devboxes of the updated policies get nothing.

        Leaving the old rules in force would leave open what the update may have closed.
        """
        known = {} if self._kernel is None else self._kernel.policies
        cut = {
            policy_id: deny_policy(policy.document, "the kernel refused it")
            if policy_id in known and known[policy_id] != policy
            else policy
            for policy_id, policy in policies.items()
        }
        names = ", ".join(sorted(policy_id for policy_id in cut if cut[policy_id] is not policies[policy_id]))
        if names:
            self._health.raise_warning(
                WarningCode.POLICY_CUT_OFF, f"The kernel keeps refusing an update; cut off until it takes it: {names}."
            )
        return cut

    def _report_denied(self, policies: Mapping[str, EnforcedPolicy]) -> None:
        complaints = [f"{key}: {policy.complaint}" for key, policy in sorted(policies.items()) if policy.complaint]
        if complaints:
            self._health.raise_warning(
                WarningCode.POLICY_DENIED, f"Denying everything, because it cannot be enforced: {'; '.join(complaints)}"
            )
        else:
            self._health.clear(WarningCode.POLICY_DENIED)

    def _report_reporting(self, policies: Mapping[str, EnforcedPolicy]) -> None:
        reporting = sorted(policy_id for policy_id, policy in policies.items() if policy.plan.is_report_only)
        if reporting:
            self._health.raise_warning(
                WarningCode.POLICY_REPORT_ONLY,
                f"These policies do not hold their devboxes back, they only report: {', '.join(reporting)}.",
            )
        else:
            self._health.clear(WarningCode.POLICY_REPORT_ONLY)

    async def _tell_gate(self, target: Target, devbox_ids: Collection[str]) -> None:
        """Give the gate the target with these devboxes. A gate that is closed, or closes now, needs nothing."""
        wanted = gate_view(target, self._layout, devbox_ids)
        frame = gate_delta(self._known_gate_view(), wanted, target.revision)
        if frame is None or self._gate.state is GateState.CLOSED:
            return
        epoch, began_s = self._gate.epoch, clock.monotonic_s()
        try:
            await self._gate.apply(frame)
        except GateClosedError as error:
            self._gate_view = None
            self._log.warning("gate_not_told", why=error.message, revision=target.revision)
            return
        self._gate_view = (epoch, wanted)
        self._counts.apply_gate.observe(clock.monotonic_s() - began_s)
        self._on_step(ApplyStep.GATE_TOLD)

    async def _set_kernel(self, target: Target) -> Applied:
        state = router_state(target, self._layout)
        is_change = self._kernel is None or self._must_set or self.failures or state != self._kernel_state
        if not is_change:
            return Applied()
        self._must_set = False
        self._on_target(target)
        began_s = clock.monotonic_s()
        try:
            applied = await self._thread.run(lambda: self._driver.set(state))
        except Exception:
            self._must_set = True
            raise
        self._counts.apply_kernel.observe(clock.monotonic_s() - began_s)
        self._on_step(ApplyStep.KERNEL_SET)
        before = self._kernel if self._kernel is not None else target
        self._kernel, self._kernel_state, self.failures = target, state, applied.failures
        self._by_slot = {placement.slot: placement for placement in target.placements.values()}
        if applied.revoked_grants:
            self._aborts.request(applied.revoked_grants, revoked_devboxes(before, applied.revoked_grants))
        if applied.is_replaced:
            # The new table may lack pins that the gate believes to be there; a full frame makes it compare.
            self._gate_view = None
        return applied

    def _live_grants(self) -> frozenset[int]:
        policies = () if self._kernel is None else self._kernel.policies.values()
        return frozenset().union(*(policy.plan.live for policy in policies))

    def _finish_round(self, target: Target, *, is_whole: bool) -> None:
        if not is_whole:
            self._work.set()
        if self.failures:
            asyncio.get_running_loop().call_later(_RETRY_DELAYS_S[-1], self._work.set)
        if self.enforced != target.revision:
            self.enforced = target.revision
            self._log.info("enforced", revision=target.revision, gate=self._gate.state.name.lower())
            self._events.on_enforced()
            self._on_step(ApplyStep.ENFORCED)
        self._events.on_round()

    def set_host_addresses(self, addresses: frozenset[IPAddress]) -> None:
        """The host's own addresses, as just observed."""
        if addresses != self._host_addresses:
            self._host_addresses = addresses
            self._work.set()
