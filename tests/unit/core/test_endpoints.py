"""What an operator lists behind a policy's flags: decisions and the kernel's cells agree on it, and flags end it."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.core.compile import compile_policy
from outgate.core.decide import decide_flow, prepare_policy
from outgate.errors import InvalidValueError
from outgate.model.addresses import Protocol
from outgate.model.endpoints import parse_endpoint, parse_endpoints
from outgate.model.flow import Flow, HostContext
from outgate.model.names import parse_host_pattern
from outgate.model.plan import (
    ENDPOINTS_EPOCHS,
    ENDPOINTS_NUMBER_MAX,
    GRANT_ALL_BIT,
    GRANT_LAST,
    grant_of_endpoints,
)
from outgate.model.policy import CidrRule, EgressRules, NetworkPolicy
from outgate.model.verdict import Allow, AllowReason
from support.policies import make_policy, make_rule
from support.strategies import addresses_near, cidr_rules, ports

CONTEXT = HostContext(
    agent_gateway_cidrs=(make_rule("10.9.8.7/32 any/443"),),
    mcp_gateway_cidrs=(make_rule("9.0.0.0/24"),),
    mirror_hosts=(parse_host_pattern("mirror.example"),),
    mirror_cidrs=(make_rule("9.0.0.0/8"),),
    endpoints_epoch=3,
)


def verdict_of(policy: NetworkPolicy, address: str, port: int, context: HostContext = CONTEXT) -> str:
    flow = Flow(Protocol.TCP, ip_address(address), port)
    verdict = decide_flow(prepare_policy(policy, context), flow, (), context)
    return str(verdict.rule) if isinstance(verdict, Allow) else "denied"


def test_a_flag_opens_the_networks_behind_it_and_no_others() -> None:
    assert (
        verdict_of(make_policy(allow_agent_gateway=True), "10.9.8.7", 443)
        == "allow_agent_gateway 10.9.8.7/32 tcp+udp/443"
    )
    assert verdict_of(make_policy(allow_agent_gateway=True), "10.9.8.7", 80) == "denied"
    assert verdict_of(make_policy(allow_agent_gateway=True), "9.0.0.1", 443) == "denied"
    assert verdict_of(make_policy(allow_mcp_gateway=True), "9.0.0.1", 443) == "allow_mcp_gateway 9.0.0.0/24"
    assert verdict_of(make_policy(allow_mcp_gateway=True), "9.0.1.1", 443) == "denied"
    assert verdict_of(make_policy(allow_runloop_mirrors=True), "9.0.1.1", 7) == "allow_runloop_mirrors 9.0.0.0/8"
    assert verdict_of(make_policy(), "9.0.0.1", 443) == "denied"
    assert verdict_of(make_policy(allow_mcp_gateway=True), "9.0.0.1", 443, HostContext()) == "denied"


def test_the_accounts_own_rules_are_named_first_and_then_the_flags_in_their_order() -> None:
    both = make_policy(allow_mcp_gateway=True, allow_runloop_mirrors=True)
    assert verdict_of(both, "9.0.0.1", 443) == "allow_mcp_gateway 9.0.0.0/24"
    own = make_policy(cidrs=["9.0.0.1/32"], allow_mcp_gateway=True)
    assert verdict_of(own, "9.0.0.1", 443) == "allowed_cidrs[0] 9.0.0.1/32"


def test_the_floor_holds_behind_flags_too() -> None:
    context = HostContext(mirror_cidrs=(make_rule("0.0.0.0/0"), make_rule("169.254.0.0/16"), make_rule("127.0.0.0/8")))
    policy = make_policy(allow_runloop_mirrors=True)
    for address in ("169.254.169.254", "127.0.0.1", "10.0.0.1"):
        assert verdict_of(policy, address, 80, context) == "denied"
    plan = compile_policy(policy, (), context)
    assert not any(cell.first <= int(ip_address("169.254.169.254")) <= cell.last for cell in plan.port_cells)


def test_each_flag_of_each_policy_has_a_grant_of_its_own_at_each_epoch() -> None:
    numbers, epochs = (1, 16, ENDPOINTS_NUMBER_MAX), range(ENDPOINTS_EPOCHS)
    grants = [grant_of_endpoints(number, flag, epoch) for number in numbers for flag in range(3) for epoch in epochs]
    assert len(set(grants)) == len(grants)
    assert all(GRANT_LAST < grant < GRANT_ALL_BIT for grant in grants)
    assert grant_of_endpoints(16, 0, ENDPOINTS_EPOCHS) == grant_of_endpoints(16, 0, 0)
    for bad in ((-1, 0), (ENDPOINTS_NUMBER_MAX + 1, 0), (16, 3)):
        with pytest.raises(ValueError, match="no grant"):
            grant_of_endpoints(*bad, 0)


def test_a_change_of_the_lists_leaves_no_grant_live() -> None:
    policy = make_policy(allow_mcp_gateway=True, allow_runloop_mirrors=True)
    before = compile_policy(policy, (), CONTEXT)
    after = compile_policy(policy, (), replace(CONTEXT, endpoints_epoch=4))
    assert len(before.live) == 2
    assert before.live.isdisjoint(after.live)
    assert compile_policy(make_policy(), (), CONTEXT).live == frozenset()
    # A flag without networks behind it has no grant: what it opens goes through the relay.
    assert compile_policy(policy, (), HostContext(mirror_hosts=CONTEXT.mirror_hosts)).live == frozenset()


def test_a_policy_number_without_room_in_the_grant_is_refused_not_opened() -> None:
    policy = make_policy(allow_runloop_mirrors=True, number=ENDPOINTS_NUMBER_MAX + 1)
    with pytest.raises(InvalidValueError, match="behind allow_runloop_mirrors"):
        compile_policy(policy, (), CONTEXT)
    compile_policy(make_policy(number=ENDPOINTS_NUMBER_MAX + 1), (), CONTEXT)


@settings(max_examples=100)
@given(
    st.lists(cidr_rules, max_size=3),
    st.tuples(*[st.lists(cidr_rules, max_size=2)] * 3),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.data(),
)
def test_the_kernels_look_up_finds_the_rule_that_the_decision_names(
    own: list[CidrRule], lists: tuple[list[CidrRule], ...], flags: tuple[bool, bool, bool], data: st.DataObject
) -> None:
    fields = ("allow_agent_gateway", "allow_mcp_gateway", "allow_runloop_mirrors")
    egress = EgressRules(
        allow_agent_gateway=flags[0],
        allow_mcp_gateway=flags[1],
        allow_runloop_mirrors=flags[2],
        allowed_cidrs=tuple(own),
    )
    policy = replace(make_policy(), egress=egress)
    gateway, mcp, mirror = map(tuple, lists)
    context = HostContext(agent_gateway_cidrs=gateway, mcp_gateway_cidrs=mcp, mirror_cidrs=mirror, endpoints_epoch=1)
    plan, prepared = compile_policy(policy, range(100, 100 + len(own)), context), prepare_policy(policy, context)
    every = [*own, *gateway, *mcp, *mirror]
    for _ in range(5):
        address, port = data.draw(addresses_near(every)), data.draw(ports(every))
        verdict = decide_flow(prepared, Flow(Protocol.TCP, address, port), (), context)
        found = [
            cell.grant
            for cell in plan.port_cells
            if cell.protocol is Protocol.TCP
            and cell.first <= int(address) <= cell.last
            and cell.port_first <= port <= cell.port_last
        ]
        if not isinstance(verdict, Allow):
            assert found == []
            continue
        assert verdict.reason is AllowReason.CIDR
        assert verdict.rule is not None
        index, field = verdict.rule.index, verdict.rule.field
        expected = 100 + index if index is not None else grant_of_endpoints(16, fields.index(field), 1)
        assert found == [expected]


def test_how_endpoints_are_written() -> None:
    hosts, cidrs = parse_endpoints(("*.mirror.example", "10.0.0.0/24", "a.example", "10.0.0.7/32:443"))
    assert [pattern.spelling for pattern in hosts] == ["*.mirror.example", "a.example"]
    assert [str(rule) for rule in cidrs] == ["10.0.0.0/24", "10.0.0.7/32 tcp+udp/443"]
    for text in (
        "10.0.0.1/24",
        "10.0.0.0/24:",
        "10.0.0.0/24:0",
        "10.0.0.0/24:x",
        "fd00::/8",
        "a.example:443",
        "10.0.0.7",
        "https://a.example",
    ):
        with pytest.raises(InvalidValueError):
            parse_endpoint(text)
