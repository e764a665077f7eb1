"""What the kernel refused, as records: the rule and the reason are decided again, by the one place that decides."""

from outgate.agent.prepared import PreparedDocuments
from outgate.agent.target import Placement
from outgate.core.decide import decide_flow
from outgate.dataplane.driver import Denial
from outgate.dataplane.layout import NetworkLayout
from outgate.model.addresses import protocol_word
from outgate.model.desired import FlowRecord, PolicyDocument
from outgate.model.flow import Flow, HostContext
from outgate.model.verdict import Deny, DenyReason, EnforcementPoint, Verdict


class DenialRecords:
    """Turns the kernel's denials into records. The kernel already limits how many of them a devbox causes."""

    def __init__(self, layout: NetworkLayout, prepared: PreparedDocuments, context: HostContext) -> None:
        self.context = context
        """Replaced when the host's addresses change."""
        self._slot_of = {layout.link(slot): slot for slot in range(layout.slots_max)}
        self._prepared = prepared

    def make(self, denial: Denial, placement: Placement, document: PolicyDocument, now_ms: int) -> FlowRecord:
        """The record of one denial in the devbox of ``placement``, whose policy is ``document``."""
        verdict = self._judge(denial, document)
        refused = verdict if isinstance(verdict, Deny) else None
        return FlowRecord(
            time_ms=now_ms,
            devbox_id=placement.devbox_id,
            policy_id=document.id,
            revision=document.revision,
            verdict="deny",
            reason=(refused.reason if refused is not None else _reason_of_allowed(denial)).value,
            point=EnforcementPoint.KERNEL.value,
            sentence=refused.sentence if refused is not None else _sentence_of_allowed(denial),
            rule="" if refused is None or refused.rule is None else str(refused.rule),
            address=str(denial.destination),
            port=denial.destination_port or 0,
            protocol=protocol_word(denial.protocol),
        )

    def slot_of(self, link: str) -> int | None:
        """The slot whose link has this name."""
        return self._slot_of.get(link)

    def _judge(self, denial: Denial, document: PolicyDocument) -> Verdict:
        flow = Flow(denial.protocol, denial.destination, denial.destination_port)
        # What a name taught goes to the relay and not through here, so no names are passed.
        return decide_flow(self._prepared.prepare(document).policy, flow, (), self.context)


def _reason_of_allowed(denial: Denial) -> DenyReason:
    return DenyReason.RESOURCE_LIMIT if denial.is_over_limit else DenyReason.NO_RULE


def _sentence_of_allowed(denial: Denial) -> str:
    if denial.is_over_limit:
        return f"The devbox already has as many flows open as one devbox may; {denial.destination} was not reached."
    # Denied by the rules before an update, or a packet of no flow that was ever begun.
    return f"{denial.destination} is allowed now, but this packet began no flow that the rules of its moment allowed."
