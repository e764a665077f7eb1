"""Answers of the network-policy routes."""

import msgspec

from outgate.control.enforcement import Enforcement
from outgate.control.policy_advice import advise_document
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import PolicyPage, RevisionPage
from outgate.control.policy_revisions import RevisionDiff
from outgate.core.advice import Advice
from outgate.model.desired import CidrDocument, PolicyDocument
from outgate.model.policy import EnforcementMode
from outgate.store.policies import PolicyRow, RevisionRow


class PortView(msgspec.Struct, frozen=True):
    """One port range as it was given."""

    port: int
    end_port: int | None
    protocol: str | None


class CidrView(msgspec.Struct, frozen=True):
    """One CIDR rule; ``ports`` is null when it covers every port and protocol."""

    cidr: str
    ports: tuple[PortView, ...] | None


class NetworkPolicyViewEgress(msgspec.Struct, frozen=True):
    """What the policy allows. Lists come back in the order and spelling they were given in."""

    allow_all: bool
    allow_devbox_to_devbox: bool
    allow_agent_gateway: bool
    allow_mcp_gateway: bool
    allow_runloop_mirrors: bool
    allowed_hostnames: tuple[str, ...]
    allowed_cidrs: tuple[CidrView, ...]


class NetworkPolicyAdvice(msgspec.Struct, frozen=True):
    """Something to think twice about: ``code`` is stable, ``field`` the place, ``text`` a sentence with the reason."""

    code: str
    field: str
    text: str


class NetworkPolicyView(msgspec.Struct, frozen=True):
    """A network policy. Times are Unix milliseconds.

    ``enforcement`` and ``warnings`` are extensions. Under ``report_only`` what the rules do not allow passes and is on
    record.
    """

    id: str
    name: str
    description: str | None
    create_time_ms: int
    update_time_ms: int
    egress: NetworkPolicyViewEgress
    enforcement: EnforcementMode
    warnings: tuple[NetworkPolicyAdvice, ...]


class NetworkPolicyListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    network_policies: tuple[NetworkPolicyView, ...]
    has_more: bool
    total_count: int | None


class NetworkPolicyRevisionView(msgspec.Struct, frozen=True):
    """One stored version of a policy: what it said, by which key and when."""

    revision: int
    name: str
    description: str | None
    time_ms: int
    key_id: str
    egress: NetworkPolicyViewEgress
    enforcement: EnforcementMode


class NetworkPolicyRevisionListView(msgspec.Struct, frozen=True):
    """One page of a policy's history, newest first."""

    revisions: tuple[NetworkPolicyRevisionView, ...]
    has_more: bool


class NetworkPolicyRevisionDiffView(msgspec.Struct, frozen=True):
    """What ``revision`` says otherwise than ``against``; ``flags`` are those that differ, as ``revision`` has them.

    So is ``enforcement``, which is null when both have the same.
    """

    policy_id: str
    revision: int
    against: int
    flags: dict[str, bool]
    hostnames_added: tuple[str, ...]
    hostnames_removed: tuple[str, ...]
    cidrs_added: tuple[CidrView, ...]
    cidrs_removed: tuple[CidrView, ...]
    enforcement: EnforcementMode | None


def view_policy(row: PolicyRow) -> NetworkPolicyView:
    """The view of a policy."""
    document = decode_policy(row.document)
    return NetworkPolicyView(
        id=row.id,
        name=row.name,
        description=row.description,
        create_time_ms=row.create_time_ms,
        update_time_ms=row.update_time_ms,
        egress=_view_egress(document),
        enforcement=EnforcementMode(row.enforcement),
        warnings=tuple(view_advice(advice) for advice in advise_document(document)),
    )


def view_advice(advice: Advice) -> NetworkPolicyAdvice:
    """The view of one thing to think about."""
    return NetworkPolicyAdvice(advice.code, advice.field, advice.text)


def view_policies(page: PolicyPage) -> NetworkPolicyListView:
    """The view of a page."""
    return NetworkPolicyListView(tuple(view_policy(row) for row in page.policies), page.has_more, page.total_count)


def view_revisions(page: RevisionPage) -> NetworkPolicyRevisionListView:
    """The view of a page of history."""
    return NetworkPolicyRevisionListView(tuple(view_revision(row) for row in page.revisions), page.has_more)


def view_revision(row: RevisionRow) -> NetworkPolicyRevisionView:
    """The view of one version."""
    document = decode_policy(row.document)
    return NetworkPolicyRevisionView(
        row.revision,
        document.name,
        row.description,
        row.time_ms,
        row.key_id,
        _view_egress(document),
        EnforcementMode(row.enforcement),
    )


def view_revision_diff(diff: RevisionDiff) -> NetworkPolicyRevisionDiffView:
    """The view of a difference."""
    return NetworkPolicyRevisionDiffView(
        policy_id=diff.policy_id,
        revision=diff.revision,
        against=diff.against,
        flags=diff.flags,
        hostnames_added=diff.hostnames_added,
        hostnames_removed=diff.hostnames_removed,
        cidrs_added=tuple(view_cidr(rule) for rule in diff.cidrs_added),
        cidrs_removed=tuple(view_cidr(rule) for rule in diff.cidrs_removed),
        enforcement=None if diff.enforcement is None else EnforcementMode(diff.enforcement),
    )


def render_enforcement(enforcement: Enforcement) -> str:
    """``k/n``: in force on k of the n devboxes that use the policy."""
    return f"{enforcement.enforced}/{enforcement.total}"


def _view_egress(document: PolicyDocument) -> NetworkPolicyViewEgress:
    return NetworkPolicyViewEgress(
        allow_all=document.allow_all,
        # While allow_all is on it covers this too; what was stored shows again when allow_all ends.
        allow_devbox_to_devbox=document.allow_all or document.allow_devbox_to_devbox,
        allow_agent_gateway=document.allow_agent_gateway,
        allow_mcp_gateway=document.allow_mcp_gateway,
        allow_runloop_mirrors=document.allow_runloop_mirrors,
        allowed_hostnames=document.allowed_hostnames,
        allowed_cidrs=tuple(view_cidr(rule) for rule in document.allowed_cidrs),
    )


def view_cidr(rule: CidrDocument) -> CidrView:
    """The view of a CIDR rule."""
    ports = tuple(PortView(ports.port, ports.end_port, ports.protocol) for ports in rule.ports)
    return CidrView(rule.cidr, ports or None)
