"""What driver and gate are to be brought to, and the steps between two such targets. Pure.

One round of the enforcer takes both from one target to the next. Its order is design §4.4:

1. gate: changed policies, devboxes that go (*narrow first*: nothing new is allowed under the old rules);
2. kernel: one transaction with everything;
3. gate: devboxes that come (their links and chains are there now).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from outgate.core.compile import compile_policy
from outgate.core.documents import policy_from_document
from outgate.dataplane.driver import RouterState, link_devbox
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import InvalidValueError
from outgate.model.addresses import IPAddress
from outgate.model.desired import GateApply, GateDevbox, PolicyDocument
from outgate.model.flow import HostContext
from outgate.model.plan import PolicyPlan

LINK_CHANGES_MAX: Final = 8
"""Links made in one round, some 1.5 ms each: what a policy update may have to wait for.

Removals are not counted. All of a round's are one request of the kernel's, which waits once for every processor to
have let go of the links: some 35 ms, whether one goes or fifty.
"""


@dataclass(frozen=True, slots=True)
class Placement:
    """One devbox that is to have a link."""

    devbox_id: str
    account_id: str
    policy_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class EnforcedPolicy:
    """A policy as both halves take it. ``complaint`` says why it was replaced by one that denies all."""

    document: PolicyDocument
    plan: PolicyPlan
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Everything that is to be enforced. Policies are those that a placement uses."""

    revision: int = 0
    policies: Mapping[str, EnforcedPolicy] = field(default_factory=dict)
    placements: Mapping[str, Placement] = field(default_factory=dict)
    host_addresses: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class GateView:
    """What the gate has, or is to have."""

    policies: Mapping[str, PolicyDocument]
    devboxes: Mapping[str, GateDevbox]
    host_addresses: tuple[str, ...]


def prepare_enforcement(document: PolicyDocument, context: HostContext) -> EnforcedPolicy:
    """The policy compiled; one that cannot be is replaced by its own denial, never left as it was."""
    try:
        policy, grants = policy_from_document(document)
        return EnforcedPolicy(document, compile_policy(policy, grants, context))
    except InvalidValueError as error:
        return deny_policy(document, error.message)


def deny_policy(document: PolicyDocument, complaint: str) -> EnforcedPolicy:
    """The same policy without any rule."""
    closed = PolicyDocument(id=document.id, name=document.name, number=document.number, revision=document.revision)
    policy, grants = policy_from_document(closed)
    return EnforcedPolicy(closed, compile_policy(policy, grants), complaint)


def bound_link_changes(linked: Collection[str], wanted: Target) -> Target:
    """``wanted`` with at most ``LINK_CHANGES_MAX`` devboxes more than are ``linked``; the rest comes next round.

    Devboxes that go are never held back: less is always safe.
    """
    fresh = [devbox_id for devbox_id in wanted.placements if devbox_id not in linked]
    late = frozenset(fresh[LINK_CHANGES_MAX:])
    if not late:
        return wanted
    placements = {key: value for key, value in wanted.placements.items() if key not in late}
    used = {placement.policy_id for placement in placements.values()}
    policies = {key: value for key, value in wanted.policies.items() if key in used}
    return replace(wanted, placements=placements, policies=policies)


def router_state(target: Target, layout: NetworkLayout) -> RouterState:
    """The kernel's half."""
    number_of = {policy_id: policy.plan.number for policy_id, policy in target.policies.items()}
    return RouterState(
        plans={policy.plan.number: policy.plan for policy in target.policies.values()},
        devboxes={
            placement.devbox_id: link_devbox(
                layout, placement.slot, placement.devbox_id, number_of[placement.policy_id]
            )
            for placement in target.placements.values()
        },
        host_addresses=target.host_addresses,
    )


def gate_view(target: Target, layout: NetworkLayout, devbox_ids: Collection[str]) -> GateView:
    """The gate's half, with only those of the target's devboxes that are among ``devbox_ids``."""
    return GateView(
        policies={policy_id: policy.document for policy_id, policy in target.policies.items()},
        devboxes={
            placement.devbox_id: _gate_devbox(placement, layout)
            for placement in target.placements.values()
            if placement.devbox_id in devbox_ids
        },
        host_addresses=tuple(sorted(str(address) for address in target.host_addresses)),
    )


def gate_delta(known: GateView | None, wanted: GateView, revision: int) -> GateApply | None:
    """What takes the gate from ``known`` (None: an empty table) to ``wanted``; None when that is nothing."""
    if known == wanted:
        return None
    if known is None:
        return GateApply(
            revision=revision,
            full=True,
            policies=tuple(wanted.policies.values()),
            devboxes=tuple(wanted.devboxes.values()),
            host_addresses=wanted.host_addresses,
        )
    return GateApply(
        revision=revision,
        full=False,
        policies=_changed(known.policies, wanted.policies),
        policies_removed=tuple(known.policies.keys() - wanted.policies.keys()),
        devboxes=_changed(known.devboxes, wanted.devboxes),
        devboxes_removed=tuple(known.devboxes.keys() - wanted.devboxes.keys()),
        host_addresses=wanted.host_addresses if wanted.host_addresses != known.host_addresses else None,
    )


_Value = TypeVar("_Value")


def _changed(known: Mapping[str, _Value], wanted: Mapping[str, _Value]) -> tuple[_Value, ...]:
    return tuple(value for key, value in wanted.items() if known.get(key) != value)


def _gate_devbox(placement: Placement, layout: NetworkLayout) -> GateDevbox:
    address6 = layout.address6(placement.slot)
    return GateDevbox(
        id=placement.devbox_id,
        account_id=placement.account_id,
        policy_id=placement.policy_id,
        link=layout.link(placement.slot),
        address4=str(layout.address4(placement.slot)),
        address6=None if address6 is None else str(address6),
    )


def revoked_devboxes(before: Target, revoked_grants: Collection[int]) -> frozenset[str]:
    """The devboxes that may have flows which carry one of ``revoked_grants``."""
    hit = {
        policy_id for policy_id, policy in before.policies.items() if not policy.plan.live.isdisjoint(revoked_grants)
    }
    return frozenset(key for key, placement in before.placements.items() if placement.policy_id in hit)
