"""Plans: exact cells for small policies, their bounds, and agreement with the decision on every flow."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.core.compile import CELLS_MAX, PolicyTooComplexError, compile_policy
from outgate.core.decide import decide_flow, prepare_policy
from outgate.model.addresses import PortRange, Protocol
from outgate.model.flow import Flow, HostContext
from outgate.model.plan import GRANT_FIRST, GRANT_LAST, PolicyPlan, PortCell, grant_of_allow_all
from outgate.model.policy import CidrRule, NetworkPolicy
from outgate.model.verdict import Allow, AllowReason
from support.policies import make_policy, make_rule
from support.strategies import addresses_near, cidr_rules, make_policy_of, ports

TCP, UDP = Protocol.TCP, Protocol.UDP


def compile_rules(*rules: str) -> PolicyPlan:
    policy = make_policy(cidrs=rules)
    return compile_policy(policy, range(100, 100 + len(rules)))


def show(plan: PolicyPlan) -> list[str]:
    """Every cell as one line; grants count from 100 in the order of the rules."""
    lines = [
        f"{IPv4Address(cell.first)}-{IPv4Address(cell.last)} {cell.protocol.name.lower()}"
        f"/{cell.port_first}-{cell.port_last} {cell.grant}"
        for cell in plan.port_cells
    ]
    return lines + [
        f"{IPv4Address(cell.first)}-{IPv4Address(cell.last)} other {cell.grant}" for cell in plan.address_cells
    ]


PLANS: dict[str, tuple[list[str], list[str]]] = {
    "no rule, no cell": ([], []),
    "a rule without ports covers all ports, 0 too, and all protocols": (
        ["8.0.0.0/8"],
        [
            "8.0.0.0-8.255.255.255 tcp/0-65535 100",
            "8.0.0.0-8.255.255.255 udp/0-65535 100",
            "8.0.0.0-8.255.255.255 other 100",
        ],
    ),
    "a rule with ports covers just them": (
        ["8.0.0.0/8 tcp/443 udp/53-54"],
        ["8.0.0.0-8.255.255.255 tcp/443-443 100", "8.0.0.0-8.255.255.255 udp/53-54 100"],
    ),
    "ports of one rule that touch are joined": (
        ["8.0.0.0/8 tcp/1-5 tcp/6-9 tcp/3-7"],
        ["8.0.0.0-8.255.255.255 tcp/1-9 100"],
    ),
    "a rule that another hides has no cell": (
        ["8.0.0.0/8 tcp/1-100", "8.8.0.0/16 tcp/50"],
        ["8.0.0.0-8.255.255.255 tcp/1-100 100"],
    ),
    "a narrower rule listed first is cut out of the wider": (
        ["8.8.0.0/16 tcp/50", "8.0.0.0/8 tcp/50"],
        [
            "8.0.0.0-8.7.255.255 tcp/50-50 101",
            "8.8.0.0-8.8.255.255 tcp/50-50 100",
            "8.9.0.0-8.255.255.255 tcp/50-50 101",
        ],
    ),
    "at the start and at the end nothing empty is left": (
        ["8.0.0.0/9 tcp/50", "8.255.0.0/16 tcp/50", "8.0.0.0/8 tcp/50"],
        [
            "8.0.0.0-8.127.255.255 tcp/50-50 100",
            "8.128.0.0-8.254.255.255 tcp/50-50 102",
            "8.255.0.0-8.255.255.255 tcp/50-50 101",
        ],
    ),
    "the last address of the wider rule is inside it": (
        ["8.8.8.9/32 tcp/50", "8.8.8.8/31 tcp/50-51"],
        ["8.8.8.8-8.8.8.8 tcp/50-51 101", "8.8.8.9-8.8.8.9 tcp/50-50 100", "8.8.8.9-8.8.8.9 tcp/51-51 101"],
    ),
    "a rule that is cut at other ports runs on undivided at its own": (
        ["8.8.0.0/16 tcp/50", "8.0.0.0/8 tcp/50-60"],
        [
            "8.0.0.0-8.7.255.255 tcp/50-60 101",
            "8.8.0.0-8.8.255.255 tcp/50-50 100",
            "8.8.0.0-8.8.255.255 tcp/51-60 101",
            "8.9.0.0-8.255.255.255 tcp/50-60 101",
        ],
    ),
    "the outer rule's other protocols run on through the inner": (
        ["8.8.0.0/16 tcp/50", "8.0.0.0/8"],
        [
            "8.0.0.0-8.7.255.255 tcp/0-65535 101",
            "8.0.0.0-8.255.255.255 udp/0-65535 101",
            "8.8.0.0-8.8.255.255 tcp/0-49 101",
            "8.8.0.0-8.8.255.255 tcp/50-50 100",
            "8.8.0.0-8.8.255.255 tcp/51-65535 101",
            "8.9.0.0-8.255.255.255 tcp/0-65535 101",
            "8.0.0.0-8.255.255.255 other 101",
        ],
    ),
    "a rule inside a private range opens it but for what is always denied": (
        ["100.100.100.0/24 udp/1"],
        ["100.100.100.0-100.100.100.199 udp/1-1 100", "100.100.100.201-100.100.100.255 udp/1-1 100"],
    ),
    "a wide rule leaves out every special range": (
        ["8.0.0.0/5 tcp/1"],
        ["8.0.0.0-9.255.255.255 tcp/1-1 100", "11.0.0.0-15.255.255.255 tcp/1-1 100"],
    ),
    "a wide rule and one inside a special range it leaves out stand side by side": (
        ["8.0.0.0/5 tcp/1-2", "10.1.0.0/16 tcp/1"],
        [
            "8.0.0.0-9.255.255.255 tcp/1-2 100",
            "10.1.0.0-10.1.255.255 tcp/1-1 101",
            "11.0.0.0-15.255.255.255 tcp/1-2 100",
        ],
    ),
    "a rule for what is always denied has no cell": (["169.254.0.0/16", "127.0.0.0/8", "224.0.0.0/4"], []),
    "the whole address space is everything ordinary": (
        ["0.0.0.0/0 tcp/1"],
        [
            "1.0.0.0-9.255.255.255 tcp/1-1 100",
            "11.0.0.0-100.63.255.255 tcp/1-1 100",
            "100.128.0.0-126.255.255.255 tcp/1-1 100",
            "128.0.0.0-168.63.129.15 tcp/1-1 100",
            "168.63.129.17-169.253.255.255 tcp/1-1 100",
            "169.255.0.0-172.15.255.255 tcp/1-1 100",
            "172.32.0.0-191.255.255.255 tcp/1-1 100",
            "192.0.1.0-192.0.1.255 tcp/1-1 100",
            "192.0.3.0-192.88.98.255 tcp/1-1 100",
            "192.88.100.0-192.167.255.255 tcp/1-1 100",
            "192.169.0.0-198.17.255.255 tcp/1-1 100",
            "198.20.0.0-198.51.99.255 tcp/1-1 100",
            "198.51.101.0-203.0.112.255 tcp/1-1 100",
            "203.0.114.0-223.255.255.255 tcp/1-1 100",
        ],
    ),
    "neighbouring networks of different rules are not joined": (
        ["8.0.0.0/9 tcp/1", "8.128.0.0/9 tcp/1"],
        ["8.0.0.0-8.127.255.255 tcp/1-1 100", "8.128.0.0-8.255.255.255 tcp/1-1 101"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "cells"), PLANS.values(), ids=PLANS.keys())
def test_plan(rules: list[str], cells: list[str]) -> None:
    plan = compile_rules(*rules)
    assert show(plan) == cells
    assert plan.live == frozenset(range(100, 100 + len(rules)))
    assert plan.grant_all == grant_of_allow_all(16)


def test_neighbouring_cells_of_one_grant_are_joined() -> None:
    # The same rule content carries the same grant; the store may hand it out twice.
    policy = make_policy(cidrs=["8.0.0.0/9", "8.128.0.0/9", "9.0.0.0/8"])
    plan = compile_policy(policy, (100, 100, 101))
    assert show(plan)[-2:] == ["8.0.0.0-8.255.255.255 other 100", "9.0.0.0-9.255.255.255 other 101"]
    assert len(plan.port_cells) == 4


def test_allow_all_is_one_live_grant_and_no_cell() -> None:
    plan = compile_policy(make_policy(cidrs=["8.0.0.0/8"], allow_all=True), (100,))
    assert plan == PolicyPlan(16, grant_of_allow_all(16), frozenset({grant_of_allow_all(16)}), (), ())


def test_a_hidden_rules_grant_stays_live() -> None:
    assert compile_rules("8.0.0.0/8", "8.8.0.0/16").live == {100, 101}


BAD_GRANTS = {
    "too few": ((100,), "1 grants for 2 CIDR rules of policy npol_1"),
    "too many": ((100, 101, 102), "3 grants for 2 CIDR rules of policy npol_1"),
    "below the first": ((100, GRANT_FIRST - 1), "grant 15 of policy npol_1 lies outside 16..1073741823"),
    "beyond the last": ((GRANT_LAST + 1, 100), "grant 1073741824 of policy npol_1 lies outside 16..1073741823"),
}


@pytest.mark.parametrize(("grants", "message"), BAD_GRANTS.values(), ids=BAD_GRANTS.keys())
def test_grants_that_do_not_fit_are_refused(grants: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_policy(make_policy(cidrs=["8.0.0.0/8", "9.0.0.0/8"]), grants)


def spread(count: int, *spans: PortRange) -> list[CidrRule]:
    """``count`` disjoint ordinary networks, each with ``spans``."""
    networks = [make_rule(f"{11 + i // 250}.{i % 250}.0.0/16").network for i in range(count)]
    return [CidrRule(network, spans) for network in networks]


def every_other_port(count: int, first: int = 1) -> tuple[PortRange, ...]:
    return tuple(PortRange(first + 2 * i, first + 2 * i, Protocol.TCP) for i in range(count))


def test_a_thousand_disjoint_networks_give_a_cell_each_and_protocol() -> None:
    plan = compile_policy(make_policy(cidrs=spread(1000)), range(100, 1100))
    assert (len(plan.port_cells), len(plan.address_cells)) == (2000, 1000)


TOO_COMPLEX: dict[str, list[CidrRule]] = {
    "too many port ranges": spread(1000, *every_other_port(21)),
    "too many cells by nesting": [
        *spread(20),
        *[CidrRule(make_rule("0.0.0.0/0").network, every_other_port(100, 1 + 200 * i)) for i in range(20)],
    ],
    "too much work for few cells": [
        *[CidrRule(make_rule("0.0.0.0/0").network, every_other_port(100, 1 + 200 * i)) for i in range(5)],
        *spread(500, PortRange(1, 1, Protocol.TCP)),
    ],
}


@pytest.mark.parametrize("rules", TOO_COMPLEX.values(), ids=TOO_COMPLEX.keys())
def test_a_policy_beyond_the_bound_is_refused(rules: list[CidrRule]) -> None:
    with pytest.raises(PolicyTooComplexError) as refusal:
        compile_policy(make_policy(cidrs=rules), range(100, 100 + len(rules)))
    assert (refusal.value.field, refusal.value.code) == ("allowed_cidrs", "policy_too_complex")
    assert refusal.value.message == (
        "The CIDR rules overlap in more ways than the kernel can be given (20,000 entries); "
        "list fewer networks or port ranges, or join them."
    )


def test_a_policy_at_the_bound_is_taken() -> None:
    rules = spread(1000, *every_other_port(20))
    plan = compile_policy(make_policy(cidrs=rules), range(100, 1100))
    assert len(plan.port_cells) == CELLS_MAX


def look_up(plan: PolicyPlan, flow: Flow) -> list[int]:
    """The grants of all cells that hold the flow, as the kernel's maps would find them."""
    value = int(flow.address)
    if flow.protocol in (TCP, UDP):
        assert flow.port is not None
        return [cell.grant for cell in plan.port_cells if _holds(cell, flow, value, flow.port)]
    return [cell.grant for cell in plan.address_cells if cell.first <= value <= cell.last]


def _holds(cell: PortCell, flow: Flow, value: int, port: int) -> bool:
    in_ports = cell.protocol == flow.protocol and cell.port_first <= port <= cell.port_last
    return in_ports and cell.first <= value <= cell.last


@settings(max_examples=100)
@given(st.lists(cidr_rules, max_size=6), st.data())
def test_the_kernels_look_up_finds_the_rule_that_the_decision_names(rules: list[CidrRule], data: st.DataObject) -> None:
    policy = make_policy_of((), rules)
    grants = tuple(range(100, 100 + len(rules)))
    plan, prepared = compile_policy(policy, grants), prepare_policy(policy, HostContext())
    for _ in range(5):
        address = data.draw(addresses_near(rules))
        protocol = data.draw(st.sampled_from([TCP, UDP, Protocol.ICMP, 132]))
        port = data.draw(ports(rules)) if protocol in (TCP, UDP) else None
        flow = Flow(protocol, address, port)
        verdict = decide_flow(prepared, flow, (), HostContext())
        if isinstance(verdict, Allow):
            assert verdict.reason is AllowReason.CIDR
            assert verdict.rule.index is not None
            assert look_up(plan, flow) == [grants[verdict.rule.index]]
        else:
            assert look_up(plan, flow) == []


@given(st.lists(cidr_rules, max_size=6))
def test_cells_are_disjoint_sorted_and_not_empty(rules: list[CidrRule]) -> None:
    plan = compile_policy(make_policy_of((), rules), tuple(range(100, 100 + len(rules))))
    assert list(plan.port_cells) == sorted(plan.port_cells)
    assert list(plan.address_cells) == sorted(plan.address_cells)
    for i, cell in enumerate(plan.port_cells):
        assert cell.first <= cell.last
        assert cell.port_first <= cell.port_last
        assert not any(_overlap(cell, other) for other in plan.port_cells[i + 1 :])
    for left, right in zip(plan.address_cells, plan.address_cells[1:], strict=False):
        assert left.last < right.first


def _overlap(one: PortCell, other: PortCell) -> bool:
    return (
        one.protocol is other.protocol
        and one.first <= other.last
        and other.first <= one.last
        and one.port_first <= other.port_last
        and other.port_first <= one.port_last
    )


@given(st.lists(cidr_rules, max_size=6))
def test_equal_policies_give_equal_plans(rules: list[CidrRule]) -> None:
    def plan_of(policy: NetworkPolicy) -> PolicyPlan:
        return compile_policy(policy, tuple(range(100, 100 + len(rules))))

    assert plan_of(make_policy_of((), rules)) == plan_of(make_policy_of((), list(rules)))
