"""A policy's stored document: the merge of a change into it, and the grants of its CIDR rules.

A rule (network and ports) that stays keeps its grant, so that its flows go on undisturbed; a rule that is new,
or comes back, gets a fresh one. No grant is ever used for a second rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from outgate.control.policy_input import PolicyChange
from outgate.core.documents import document_from_policy, policy_from_document
from outgate.model.desired import CidrDocument, PolicyDocument
from outgate.model.policy import CidrRule, EgressRules, NetworkPolicy

_DECODER: Final = msgspec.json.Decoder(PolicyDocument)
_ENCODER: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Merge:
    """A policy's next document, but for the grants of ``new_rules``, which the store has to give out."""

    document: PolicyDocument
    rules: tuple[CidrRule, ...] | None
    """The CIDR rules when the change gave some, else None."""
    kept: Mapping[CidrRule, int]
    new_rules: tuple[CidrRule, ...]


def decode_policy(text: str) -> PolicyDocument:
    """A stored document."""
    return _DECODER.decode(text)


def encode_policy(document: PolicyDocument) -> str:
    """``document`` as it is stored."""
    return _ENCODER.encode(document).decode()


def merge_change(document: PolicyDocument, change: PolicyChange) -> Merge:
    """``document`` with the given fields of ``change`` in place of its own; revision and number as they were."""
    fields: dict[str, object] = dict(change.flags)
    if change.name is not None:
        fields["name"] = change.name
    if change.enforcement is not None:
        fields["enforcement"] = change.enforcement.value
    if change.allowed_hostnames is not None:
        fields["allowed_hostnames"] = tuple(pattern.spelling for pattern in change.allowed_hostnames)
    merged = msgspec.structs.replace(document, **fields)
    rules = change.allowed_cidrs
    if rules is None:
        return Merge(merged, None, {}, ())
    granted = _grants_by_rule(document)
    kept = {rule: granted[rule] for rule in rules if rule in granted}
    # A dict, not a set: new grants are given out in the order of the rules.
    new_rules = tuple(dict.fromkeys(rule for rule in rules if rule not in granted))
    return Merge(merged, rules, kept, new_rules)


def finish_merge(merge: Merge, *, grant_first: int) -> PolicyDocument:
    """The next document, with grants from ``grant_first`` on for the new rules."""
    if merge.rules is None:
        return merge.document
    grants = {**merge.kept, **{rule: grant_first + index for index, rule in enumerate(merge.new_rules)}}
    return msgspec.structs.replace(merge.document, allowed_cidrs=_cidr_documents(merge.rules, grants))


def _grants_by_rule(document: PolicyDocument) -> dict[CidrRule, int]:
    if not document.allowed_cidrs:
        return {}
    policy, grants = policy_from_document(document)
    return dict(zip(policy.egress.allowed_cidrs, grants, strict=True))


def _cidr_documents(rules: tuple[CidrRule, ...], grants: Mapping[CidrRule, int]) -> tuple[CidrDocument, ...]:
    policy = NetworkPolicy(id="", name="", number=0, revision=1, egress=EgressRules(allowed_cidrs=rules))
    return document_from_policy(policy, [grants[rule] for rule in rules]).allowed_cidrs
