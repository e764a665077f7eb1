"""Merging changes, and what becomes of grants. A grant that were used for two rules would let flows through."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from outgate.control.policy_documents import decode_policy, encode_policy, finish_merge, merge_change
from outgate.control.policy_input import CidrInput, PolicyInput, PortInput, parse_policy_input
from outgate.core.documents import policy_from_document
from outgate.model.addresses import Protocol
from outgate.model.desired import PolicyDocument
from outgate.model.policy import CidrRule

EMPTY = PolicyDocument(id="npol_x", name="x", number=16, revision=1)

ports = st.builds(
    lambda first, length, protocol: PortInput(first, first + length if length else None, protocol),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from([None, Protocol.TCP, Protocol.UDP]),
)
cidrs = st.builds(
    CidrInput, st.sampled_from(["192.0.2.0/24", "8.8.8.0/24", "10.0.0.0/8"]), st.lists(ports, max_size=2).map(tuple)
)
changes = st.builds(
    PolicyInput,
    name=st.none() | st.sampled_from(["x", "y"]),
    description=st.none(),
    allow_all=st.none() | st.booleans(),
    allow_devbox_to_devbox=st.none() | st.booleans(),
    allow_agent_gateway=st.none() | st.booleans(),
    allow_mcp_gateway=st.none() | st.booleans(),
    allow_runloop_mirrors=st.none() | st.booleans(),
    allowed_hostnames=st.none() | st.lists(st.sampled_from(["a.example", "*.A.example."]), max_size=3).map(tuple),
    allowed_cidrs=st.none() | st.lists(cidrs, max_size=4).map(tuple),
)


def apply(document: PolicyDocument, given: PolicyInput, grant_next: int) -> tuple[PolicyDocument, int]:
    merge = merge_change(document, parse_policy_input(given))
    return finish_merge(merge, grant_first=grant_next), grant_next + len(merge.new_rules)


def rules_of(document: PolicyDocument) -> dict[CidrRule, int]:
    policy, grants = policy_from_document(document)
    return dict(zip(policy.egress.allowed_cidrs, grants, strict=True))


@given(st.lists(changes, max_size=8))
def test_a_grant_belongs_to_one_rule_for_ever(steps: list[PolicyInput]) -> None:
    document, grant_next = EMPTY, 16
    owners: dict[int, CidrRule] = {}
    for step in steps:
        before = rules_of(document)
        document, grant_next = apply(document, step, grant_next)
        after = rules_of(document)
        for rule, grant in after.items():
            assert owners.setdefault(grant, rule) == rule
            # What stays keeps its grant, so that its flows go on; what comes back gets a fresh one.
            assert before.get(rule, grant) == grant
            assert rule in before or grant >= grant_next - len(after)


@given(changes, changes)
def test_given_fields_replace_and_the_others_stay(first: PolicyInput, second: PolicyInput) -> None:
    before, grant_next = apply(EMPTY, first, 16)
    after, _ = apply(before, second, grant_next)
    for field in msgspec.structs.fields(PolicyDocument):
        given_value = getattr(second, field.name, None)
        if given_value is None:
            assert getattr(after, field.name) == getattr(before, field.name)
        elif field.name == "allowed_cidrs":
            assert [rule.cidr for rule in after.allowed_cidrs] == [entry.cidr for entry in given_value]
        else:
            assert getattr(after, field.name) == given_value


@given(changes)
def test_the_same_change_twice_changes_nothing(change: PolicyInput) -> None:
    once, grant_next = apply(EMPTY, change, 16)
    twice, grant_after = apply(once, change, grant_next)
    assert (twice, grant_after) == (once, grant_next)


@given(changes)
def test_documents_survive_the_store(change: PolicyInput) -> None:
    document, _ = apply(EMPTY, change, 16)
    assert decode_policy(encode_policy(document)) == document


def test_the_same_rule_twice_has_one_grant() -> None:
    entry = CidrInput("192.0.2.0/24", (PortInput(443),))
    document, grant_next = apply(EMPTY, PolicyInput(allowed_cidrs=(entry, entry)), 20)
    assert [rule.grant for rule in document.allowed_cidrs] == [20, 20]
    assert grant_next == 21


def test_a_range_of_one_port_is_the_same_rule_in_another_spelling() -> None:
    one, grant_next = apply(EMPTY, PolicyInput(allowed_cidrs=(CidrInput("192.0.2.0/24", (PortInput(443),)),)), 20)
    other, _ = apply(one, PolicyInput(allowed_cidrs=(CidrInput("192.0.2.0/24", (PortInput(443, 443),)),)), grant_next)
    assert [rule.grant for rule in other.allowed_cidrs] == [20]
    assert other.allowed_cidrs[0].ports[0].end_port == 443
