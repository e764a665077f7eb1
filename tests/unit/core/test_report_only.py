"""Policies that only report: the same decisions, carried out otherwise; and never where the floor has a say."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.compile import compile_policy
from outgate.core.decide import (
    decide_answer,
    decide_flow,
    decide_lookup,
    decide_teach,
    decide_tunnel,
    floor_class,
    is_reported,
)
from outgate.core.documents import document_from_policy, policy_from_document
from outgate.core.ranges import ALWAYS_DENIED, classify, normalise_address, special_spans
from outgate.errors import InvalidValueError
from outgate.model.addresses import IPAddress
from outgate.model.flow import Flow, HostContext
from outgate.model.names import DomainName
from outgate.model.plan import GRANT_LAST, REPORT_NUMBER_MAX, grant_of_endpoints, grant_of_report
from outgate.model.policy import EnforcementMode, NetworkPolicy
from outgate.model.verdict import Allow, Deny, ReportOnly
from support.policies import make_policy, names, prepare
from support.strategies import cidr_rules, domain_names, handshakes, host_patterns

CONTEXT = HostContext(
    host_addresses=frozenset({ip_address("45.45.45.1")}),
    devbox_networks=(ip_network("10.213.0.0/16"),),
    internal_zones=names("corp.example"),
    tunnel_domain=DomainName("tunnel.example"),
)
addresses: st.SearchStrategy[IPAddress] = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.sampled_from(["8.8.8.8", "10.1.2.3", "169.254.169.254", "45.45.45.1", "10.213.0.9", "64:ff9b::a01:203"]).map(
        ip_address
    ),
)
policies = st.builds(
    lambda hosts, cidrs: make_policy(*(host.spelling for host in hosts), cidrs=cidrs),
    st.lists(host_patterns, max_size=3),
    st.lists(cidr_rules, max_size=3),
)


def reporting(policy: NetworkPolicy) -> NetworkPolicy:
    return replace(policy, enforcement=EnforcementMode.REPORT_ONLY)


flows = st.builds(
    lambda protocol, address, port, handshake: Flow(
        protocol, address, port if protocol in (6, 17) else None, handshake
    ),
    st.sampled_from([6, 17, 1, 47]),
    addresses,
    st.integers(1, 65535),
    handshakes,
)


@given(policies, flows, st.lists(domain_names))
def test_a_flow_passes_and_is_reported_exactly_where_it_would_be_denied_off_the_floor(
    policy: NetworkPolicy, flow: Flow, taught: list[DomainName]
) -> None:
    enforced = decide_flow(prepare(policy, CONTEXT), flow, taught, CONTEXT)
    reported = decide_flow(prepare(reporting(policy), CONTEXT), flow, taught, CONTEXT)
    if isinstance(enforced, Deny) and floor_class(normalise_address(flow.address), CONTEXT) is None:
        assert isinstance(reported, ReportOnly)
        assert reported.would_be == enforced
        assert enforced.sentence in reported.sentence
        assert is_reported(prepare(reporting(policy), CONTEXT), flow.address, CONTEXT)
    else:
        assert reported == enforced


@given(policies, domain_names, addresses)
def test_names_are_looked_up_and_taught_but_for_the_floor(
    policy: NetworkPolicy, name: DomainName, address: IPAddress
) -> None:
    enforced, reported = prepare(policy, CONTEXT), prepare(reporting(policy), CONTEXT)
    lookup = decide_lookup(reported, name, CONTEXT)
    assert not isinstance(lookup, Deny)
    assert isinstance(lookup, Allow) is isinstance(decide_lookup(enforced, name, CONTEXT), Allow)
    for decide in (decide_teach, decide_answer):
        strict, lenient = decide(enforced, name, address, CONTEXT), decide(reported, name, address, CONTEXT)
        if isinstance(strict, Allow):
            assert lenient == strict
        elif floor_class(address, CONTEXT) is None:
            assert isinstance(lenient, ReportOnly)
        elif floor_class(address, CONTEXT) in ALWAYS_DENIED:
            assert isinstance(lenient, Deny)
        else:
            # A private address: where a CIDR rule opens it, it is the name that is reported.
            assert isinstance(lenient, Deny) or reported.find_host_rule(name) is None


def test_a_private_address_is_not_taught_for_a_name_that_is_only_reported() -> None:
    policy = prepare(make_policy(cidrs=["10.9.0.0/16"], report_only=True), CONTEXT)
    name = DomainName("a.example")
    assert isinstance(decide_teach(policy, name, ip_address("10.1.2.3"), CONTEXT), Deny)
    assert isinstance(decide_teach(policy, name, ip_address("10.9.2.3"), CONTEXT), ReportOnly)
    assert isinstance(decide_teach(policy, name, ip_address("8.8.8.8"), CONTEXT), ReportOnly)


def test_tunnels_stay_closed() -> None:
    key = "0" * 8
    name = DomainName(f"8080-{key}.tunnel.example")
    assert isinstance(decide_tunnel(prepare(make_policy(report_only=True), CONTEXT), "acc_1", name, CONTEXT), Deny)


def test_the_mode_survives_a_document_and_an_unknown_one_is_refused() -> None:
    policy = make_policy("a.example", report_only=True)
    document = document_from_policy(policy, ())
    assert policy_from_document(document)[0] == policy
    with pytest.raises(InvalidValueError, match="enforcement is 'audit'") as caught:
        policy_from_document(msgspec.structs.replace(document, enforcement="audit"))
    assert caught.value.field == "enforcement"


def test_one_live_grant_is_all_that_the_kernel_learns() -> None:
    policy = make_policy("a.example", cidrs=["8.8.8.0/24"])
    enforced, reported = compile_policy(policy, (20,)), compile_policy(reporting(policy), (20,))
    assert reported.is_report_only
    assert not enforced.is_report_only
    assert replace(reported, live=enforced.live) == enforced
    assert reported.live - enforced.live == {grant_of_report(16)}
    assert not compile_policy(reporting(make_policy(allow_all=True)), ()).is_report_only


def test_the_grant_is_nobody_elses() -> None:
    grants = {grant_of_report(number) for number in (0, 16, REPORT_NUMBER_MAX)}
    assert all(GRANT_LAST < grant < 0x8000_0000 for grant in grants)
    assert grants.isdisjoint({grant_of_endpoints(16, flag, 0) for flag in range(3)})
    with pytest.raises(ValueError, match="no grant of report"):
        grant_of_report(REPORT_NUMBER_MAX + 1)
    with pytest.raises(InvalidValueError, match="cannot only report"):
        compile_policy(replace(make_policy(report_only=True), number=REPORT_NUMBER_MAX + 1), ())


SPANS = special_spans()


@given(addresses | st.sampled_from([edge for span in SPANS for edge in span]), st.sampled_from([-1, 0, 1]))
def test_the_kernels_spans_hold_every_special_address_and_no_other(address: IPAddress, offset: int) -> None:
    value = (int(address) + offset) % 2**address.max_prefixlen
    address = type(address)(value)
    inside = any(int(a) <= value <= int(b) for a, b in SPANS if a.version == address.version)
    assert inside is (classify(address) is not None)


def test_spans_are_disjoint_and_do_not_touch() -> None:
    for family in (4, 6):
        spans = [(int(first), int(last)) for first, last in SPANS if first.version == family]
        assert all(last + 1 < first for (_, last), (first, _) in pairwise(spans))
