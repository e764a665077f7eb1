"""What holds of every policy and flow, whatever the rules are."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from outgate.core.decide import decide_answer, decide_flow, decide_lookup, decide_teach, floor_class, prepare_policy
from outgate.core.ranges import ALWAYS_DENIED
from outgate.model.flow import Flow, HostContext
from outgate.model.names import DomainName, parse_domain_name
from outgate.model.policy import NetworkPolicy
from outgate.model.verdict import Allow, AllowReason, Deny, Verdict
from support.strategies import addresses_near, domain_names, flows, make_policy_of, policies, taught_names

CONTEXT = HostContext(internal_zones=(parse_domain_name("b.example"),))
PLAIN = HostContext()
contexts = st.sampled_from([PLAIN, CONTEXT, replace(CONTEXT, address_bound=False)])


def flow_of(data: st.DataObject, policy: NetworkPolicy) -> Flow:
    return data.draw(flows(policy.egress.allowed_cidrs))


def judge(policy: NetworkPolicy, flow: Flow, taught: Sequence[DomainName], context: HostContext) -> Verdict:
    return decide_flow(prepare_policy(policy, context), flow, taught, context)


def without_rule(verdict: Verdict) -> tuple[type[Verdict], object]:
    assert isinstance(verdict, Allow | Deny)
    return type(verdict), verdict.reason


@given(policies, policies, st.data(), taught_names, contexts)
def test_more_rules_never_deny_what_fewer_allow(
    policy: NetworkPolicy, more: NetworkPolicy, data: st.DataObject, taught: list[DomainName], context: HostContext
) -> None:
    flow = flow_of(data, policy)
    joined = make_policy_of(
        (*more.egress.allowed_hostnames, *policy.egress.allowed_hostnames),
        (*more.egress.allowed_cidrs, *policy.egress.allowed_cidrs),
        allow_all=policy.egress.allow_all or more.egress.allow_all,
    )
    if isinstance(judge(policy, flow, taught, context), Allow):
        assert isinstance(judge(joined, flow, taught, context), Allow)


@given(policies, st.data(), taught_names, contexts, st.randoms(use_true_random=False))
def test_the_order_of_rules_changes_no_verdict_and_no_reason(
    policy: NetworkPolicy, data: st.DataObject, taught: list[DomainName], context: HostContext, random: Random
) -> None:
    flow = flow_of(data, policy)
    hostnames, cidrs = list(policy.egress.allowed_hostnames), list(policy.egress.allowed_cidrs)
    random.shuffle(hostnames)
    random.shuffle(cidrs)
    other = make_policy_of(hostnames, cidrs, allow_all=policy.egress.allow_all)
    assert without_rule(judge(policy, flow, taught, context)) == without_rule(judge(other, flow, taught, context))


@given(policies, st.data(), taught_names, contexts)
def test_the_order_of_teaching_changes_nothing(
    policy: NetworkPolicy, data: st.DataObject, taught: list[DomainName], context: HostContext
) -> None:
    flow = flow_of(data, policy)
    assert judge(policy, flow, taught, context) == judge(policy, flow, taught[::-1], context)


@given(policies, st.data(), taught_names, contexts)
def test_nothing_opens_the_always_denied_floor(
    policy: NetworkPolicy, data: st.DataObject, taught: list[DomainName], context: HostContext
) -> None:
    flow = flow_of(data, policy)
    floor = floor_class(flow.address, context)
    verdict = judge(policy, flow, taught, context)
    if floor in ALWAYS_DENIED:
        assert isinstance(verdict, Deny)
        assert verdict.reason is floor


@given(policies, st.data(), taught_names, contexts)
def test_a_mapped_address_is_judged_like_the_one_inside(
    policy: NetworkPolicy, data: st.DataObject, taught: list[DomainName], context: HostContext
) -> None:
    flow = flow_of(data, policy)
    address = data.draw(addresses_near(policy.egress.allowed_cidrs))
    mapped = IPv6Address(int(IPv6Address("::ffff:0:0")) | int(address))
    assert judge(policy, structs.replace(flow, address=mapped), taught, context) == judge(
        policy, structs.replace(flow, address=address), taught, context
    )


@given(st.data(), taught_names, contexts)
def test_no_rule_allows_nothing(data: st.DataObject, taught: list[DomainName], context: HostContext) -> None:
    empty = make_policy_of((), ())
    assert isinstance(judge(empty, flow_of(data, empty), taught, context), Deny)
    prepared = prepare_policy(empty, context)
    for name in taught:
        assert isinstance(decide_lookup(prepared, name, context), Deny)
        assert isinstance(decide_answer(prepared, name, IPv4Address("8.8.8.8"), context, port=443), Deny)


@given(policies, st.data(), contexts)
def test_an_untaught_address_passes_by_address_rules_alone(
    policy: NetworkPolicy, data: st.DataObject, context: HostContext
) -> None:
    verdict = judge(policy, flow_of(data, policy), (), context)
    if isinstance(verdict, Allow):
        assert verdict.reason in (AllowReason.ALLOW_ALL, AllowReason.CIDR)


@given(policies, domain_names, st.data(), contexts, st.none() | st.integers(0, 65535))
def test_what_may_be_dialled_may_be_handed_out_and_what_may_be_handed_out_may_be_looked_up(
    policy: NetworkPolicy, name: DomainName, data: st.DataObject, context: HostContext, port: int | None
) -> None:
    prepared = prepare_policy(policy, context)
    address = data.draw(addresses_near(policy.egress.allowed_cidrs) | st.ip_addresses(v=6))
    dialled = decide_answer(prepared, name, address, context, port=port)
    taught = decide_teach(prepared, name, address, context)
    if isinstance(dialled, Allow):
        assert isinstance(taught, Allow)
    if isinstance(taught, Allow):
        assert isinstance(decide_lookup(prepared, name, context), Allow)


@given(policies, st.data(), taught_names, contexts)
def test_every_verdict_names_a_rule_of_the_policy_and_says_why(
    policy: NetworkPolicy, data: st.DataObject, taught: list[DomainName], context: HostContext
) -> None:
    verdict = judge(policy, flow_of(data, policy), taught, context)
    assert isinstance(verdict, Allow | Deny)
    assert verdict.sentence
    assert verdict.sentence[-1] in ".)"
    assert isinstance(verdict, Deny) or verdict.rule is not None
    if verdict.rule is not None and verdict.rule.index is not None:
        assert verdict.rule.index < len(getattr(policy.egress, verdict.rule.field))
