"""Whose a kernel flow is, and which rule let it pass: known also of devboxes and revisions that are gone by now."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, dropwhile
from typing import Final

import msgspec

from outgate import clock
from outgate.agent.prepared import PreparedDocuments
from outgate.agent.target import Placement, Target
from outgate.core import sentences
from outgate.core.decide import decide_flow
from outgate.dataplane.conntrack import TrackedFlow
from outgate.dataplane.layout import NetworkLayout
from outgate.model.addresses import IPAddress
from outgate.model.desired import PolicyDocument
from outgate.model.flow import Flow, HostContext
from outgate.model.policy import NetworkPolicy
from outgate.model.verdict import Allow, AllowReason, Deny, RuleRef, Verdict

_REVISIONS_MAX: Final = 4
"""Revisions kept of each policy. A flow that lost its rule is told of seconds later, when conntrack forgets it."""
_FORMER_POLICIES_MAX: Final = 256
"""Policies kept that nothing on this host uses any more."""
_POLICIES_OF_DEVBOX_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Owner:
    """A devbox that has, or had, a link. ``policy_ids``: what it is under, and before that was.

    ``since_ms``: no flow of it began before this time (Unix).
    """

    devbox_id: str
    policy_ids: tuple[str, ...]
    since_ms: int
    is_linked: bool = True


class Granted(msgspec.Struct, frozen=True):
    """Why a flow passed: ``verdict`` of ``policy`` as it was then. ``is_live``: it still does so now."""

    policy: NetworkPolicy
    verdict: Verdict
    is_live: bool


@dataclass(frozen=True, slots=True)
class _Revision:
    document: PolicyDocument
    live: frozenset[int]


class FlowOwners:
    """Learns each target before the kernel does. Belongs to the event loop's thread."""

    def __init__(self, layout: NetworkLayout, prepared: PreparedDocuments, context: HostContext) -> None:
        self.context = context
        """Replaced when the host's addresses change."""
        self._layout, self._prepared = layout, prepared
        self._placements: Mapping[str, Placement] = {}
        self._owners: dict[int, tuple[Owner, ...]] = {}
        """By slot: who has it, and who had it before."""
        self._revisions: dict[str, tuple[_Revision, ...]] = {}
        """By policy, newest first."""

    def learn(self, target: Target) -> None:
        """``target`` is about to be enforced."""
        self._learn_revisions(target)
        if target.placements == self._placements:
            return
        for devbox_id in self._placements.keys() - target.placements.keys():
            slot = self._placements[devbox_id].slot
            owner, *before = self._owners[slot]
            self._owners[slot] = (replace(owner, is_linked=False), *before)
        for placement in target.placements.values():
            if self._placements.get(placement.devbox_id) != placement:
                self._place(placement)
        self._placements = dict(target.placements)

    def _place(self, placement: Placement) -> None:
        before = self._owners.get(placement.slot, ())
        policy_ids: tuple[str, ...] = (placement.policy_id,)
        # What is known at the agent's start has been running before.
        since_ms = clock.wall_ms() if before else 0
        if before and before[0].devbox_id == placement.devbox_id:
            owner, before = before[0], before[1:]
            policy_ids = tuple(dict.fromkeys(policy_ids + owner.policy_ids))[:_POLICIES_OF_DEVBOX_MAX]
            since_ms = owner.since_ms
        self._owners[placement.slot] = (Owner(placement.devbox_id, policy_ids, since_ms), *before[:1])

    def _learn_revisions(self, target: Target) -> None:
        for policy_id, policy in target.policies.items():
            known = self._revisions.get(policy_id, ())
            if not known or known[0].document != policy.document:
                # At the end of the dictionary, so that the first are those that nothing has used for longest.
                self._revisions.pop(policy_id, None)
                revision = _Revision(policy.document, policy.plan.live)
                self._revisions[policy_id] = (revision, *known[: _REVISIONS_MAX - 1])
        excess = len(self._revisions) - len(target.policies) - _FORMER_POLICIES_MAX
        if excess > 0:
            former = [policy_id for policy_id in self._revisions if policy_id not in target.policies]
            for policy_id in former[:excess]:
                del self._revisions[policy_id]

    def find_owner(self, address: IPAddress, began_ms: int) -> Owner | None:
        """The devbox that had this address when a flow began; None for an address that none has had."""
        slot = self._layout.find_slot(address)
        owners = () if slot is None else self._owners.get(slot, ())
        # A clock that was set back leaves the one whose flow it was most likely.
        return next((owner for owner in owners if began_ms >= owner.since_ms), owners[-1] if owners else None)

    def find_grant(self, owner: Owner, flow: TrackedFlow) -> Granted | None:
        """By what the flow of ``owner`` passed; None when nothing is known of the devbox's policies."""
        newest = self._revisions.get(owner.policy_ids[0])
        if newest is None:
            return None
        for revision in self._revisions_of(owner):
            verdict = self._verdict_by_mark(revision, flow) if flow.mark in revision.live else None
            if verdict is not None:
                policy = self._prepared.prepare(revision.document).policy.policy
                return Granted(policy, verdict, is_live=flow.mark in newest[0].live)
        return self._find_former(owner, newest[0], flow)

    def _find_former(self, owner: Owner, newest: _Revision, flow: TrackedFlow) -> Granted:
        """For a mark that says nothing: whatever allowed the flow before it was denied."""
        judged = ((one, self._judge(one, flow)) for one in self._revisions_of(owner))
        denied_first = dropwhile(lambda pair: not isinstance(pair[1], Deny), judged)
        revision, verdict = next((pair for pair in denied_first if not isinstance(pair[1], Deny)), (newest, None))
        policy = self._prepared.prepare(revision.document).policy.policy
        if verdict is None:
            verdict = Allow(AllowReason.FORMER_RULE, RuleRef(""), sentences.allowed_before(policy))
        return Granted(policy, verdict, is_live=False)

    def _revisions_of(self, owner: Owner) -> Iterator[_Revision]:
        return chain.from_iterable(self._revisions.get(policy_id, ()) for policy_id in owner.policy_ids)

    def _verdict_by_mark(self, revision: _Revision, flow: TrackedFlow) -> Verdict | None:
        """The verdict of the rule whose grant the flow carries; None when the revision has no such rule after all."""
        prepared = self._prepared.prepare(revision.document)
        place = prepared.places.get(flow.mark)
        if place is not None:
            return prepared.policy.cidr_allows[place]
        # One grant for all that passes by it: which rule that is, is decided.
        verdict = self._judge(revision, flow)
        return None if isinstance(verdict, Deny) else verdict

    def _judge(self, revision: _Revision, flow: TrackedFlow) -> Verdict:
        target = Flow(flow.protocol, flow.destination, flow.destination_port or None)
        # What a name taught goes to the relay and not through here, so no names are passed.
        return decide_flow(self._prepared.prepare(revision.document).policy, target, (), self.context)
