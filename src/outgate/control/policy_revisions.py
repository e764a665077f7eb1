"""The versions of a policy: one of them, the difference of two, and going back to one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.errors import NotFoundError
from outgate.control.policies import Updated, apply_change
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_input import PolicyChange
from outgate.control.policy_reading import read_live_policy
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.core.documents import policy_from_document
from outgate.model.desired import CidrDocument, PolicyDocument
from outgate.model.policy import EGRESS_FLAGS
from outgate.store.policies import RevisionRow, find_revision

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RevisionDiff:
    """What ``revision`` says otherwise than ``against``. The order of entries means nothing, so it is no difference."""

    policy_id: str
    revision: int
    against: int
    flags: dict[str, bool]
    """Those that differ, as ``revision`` has them."""
    hostnames_added: tuple[str, ...]
    hostnames_removed: tuple[str, ...]
    cidrs_added: tuple[CidrDocument, ...]
    cidrs_removed: tuple[CidrDocument, ...]
    enforcement: str | None
    """As ``revision`` has it; None when both have the same."""


async def get_revision(services: Services, caller: Caller, policy_id: str, revision: int) -> RevisionRow:
    """One version of the caller's policy. Raises NotFoundError."""
    return await read_as(services, caller, lambda tx: _find(tx, caller, policy_id, revision))


async def diff_revisions(
    services: Services, caller: Caller, policy_id: str, revision: int, *, against: int
) -> RevisionDiff:
    """The difference of two versions of the caller's policy. Raises NotFoundError."""

    def read(tx: Connection) -> tuple[PolicyDocument, PolicyDocument]:
        new, old = (_find(tx, caller, policy_id, number) for number in (revision, against))
        return decode_policy(new.document), decode_policy(old.document)

    new, old = await read_as(services, caller, read)
    added, removed = _difference(new.allowed_hostnames, old.allowed_hostnames)
    cidrs_added, cidrs_removed = _difference(_without_grants(new), _without_grants(old))
    return RevisionDiff(
        policy_id,
        revision,
        against,
        {flag: getattr(new, flag) for flag in EGRESS_FLAGS if getattr(new, flag) != getattr(old, flag)},
        added,
        removed,
        cidrs_added,
        cidrs_removed,
        new.enforcement if new.enforcement != old.enforcement else None,
    )


async def restore_revision(services: Services, call: Call, policy_id: str, revision: int) -> Updated:
    """Make what version ``revision`` allows the policy's own again, as a new version; name and description stay.

    In force when this returns, as after any update. Raises NotFoundError, and InvalidValueError when the rules do not
    fit this installation any more.
    """
    row = await get_revision(services, call.caller, policy_id, revision)
    document = decode_policy(row.document)
    policy = policy_from_document(document)[0]
    change = PolicyChange(
        name=None,
        description=None,
        flags={flag: getattr(document, flag) for flag in EGRESS_FLAGS},
        allowed_hostnames=policy.egress.allowed_hostnames,
        allowed_cidrs=policy.egress.allowed_cidrs,
        enforcement=policy.enforcement,
    )
    return await apply_change(services, call, policy_id, change)


def _find(tx: Connection, caller: Caller, policy_id: str, revision: int) -> RevisionRow:
    policy = read_live_policy(tx, caller, policy_id)
    row = find_revision(tx, caller.account_id, policy.id, revision)
    if row is None:
        message = f"NetworkPolicy {policy.id} has no revision {revision}; its newest is {policy.revision}."
        raise NotFoundError(message, code="revision_not_found")
    return row


def _without_grants(document: PolicyDocument) -> tuple[CidrDocument, ...]:
    # A rule that went and came back has another grant, and is the same rule.
    return tuple(CidrDocument(rule.cidr, 0, rule.ports) for rule in document.allowed_cidrs)


def _difference(new: Iterable[T], old: Iterable[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """What is only in ``new``, and what is only in ``old``."""
    new, old = tuple(new), tuple(old)
    return tuple(one for one in new if one not in set(old)), tuple(one for one in old if one not in set(new))
