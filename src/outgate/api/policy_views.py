"""Answers of the network-policy routes."""

import msgspec

from outgate.control.enforcement import Enforcement
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import PolicyPage, RevisionPage
from outgate.control.policy_revisions import RevisionDiff
from outgate.model.desired import CidrDocument, PolicyDocument
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


class NetworkPolicyView(msgspec.Struct, frozen=True):
    """A network policy. Times are Unix milliseconds."""

    id: str
    name: str
    description: str | None
    create_time_ms: int
    update_time_ms: int
    egress: NetworkPolicyViewEgress


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


class NetworkPolicyRevisionListView(msgspec.Struct, frozen=True):
    """One page of a policy's history, newest first."""

    revisions: tuple[NetworkPolicyRevisionView, ...]
    has_more: bool


class NetworkPolicyRevisionDiffView(msgspec.Struct, frozen=True):
    """What ``revision`` says otherwise than ``against``; ``flags`` are those that differ, as ``revision`` has them."""

    policy_id: str
    revision: int
    against: int
    flags: dict[str, bool]
    hostnames_added: tuple[str, ...]
    hostnames_removed: tuple[str, ...]
    cidrs_added: tuple[CidrView, ...]
    cidrs_removed: tuple[CidrView, ...]


def view_policy(row: PolicyRow) -> NetworkPolicyView:
    """The view of a policy."""
    return NetworkPolicyView(
        id=row.id,
        name=row.name,
        description=row.description,
        create_time_ms=row.create_time_ms,
        update_time_ms=row.update_time_ms,
        egress=_view_egress(decode_policy(row.document)),
    )


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
        row.revision, document.name, row.description, row.time_ms, row.key_id, _view_egress(document)
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
        cidrs_added=tuple(_view_cidr(rule) for rule in diff.cidrs_added),
        cidrs_removed=tuple(_view_cidr(rule) for rule in diff.cidrs_removed),
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
        allowed_cidrs=tuple(_view_cidr(rule) for rule in document.allowed_cidrs),
    )


def _view_cidr(rule: CidrDocument) -> CidrView:
    ports = tuple(PortView(ports.port, ports.end_port, ports.protocol) for ports in rule.ports)
    return CidrView(rule.cidr, ports or None)
