"""The index of CIDR rules answers as a walk over the list would."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.cidr_index import group_rules, index_cidrs
from outgate.model.addresses import Protocol
from outgate.model.policy import CidrRule
from support.policies import make_rule
from support.strategies import addresses_near, cidr_rules, ports

TCP, UDP, ICMP = Protocol.TCP, Protocol.UDP, Protocol.ICMP

CASES: dict[str, tuple[list[str], tuple[str, int, int | None], int | None]] = {
    "no rule": ([], ("8.8.8.8", TCP, 443), None),
    "a rule without ports covers any port": (["8.0.0.0/8"], ("8.8.8.8", TCP, 443), 0),
    "a rule without ports covers port 0": (["8.0.0.0/8"], ("8.8.8.8", UDP, 0), 0),
    "a rule without ports covers any protocol": (["8.0.0.0/8"], ("8.8.8.8", 47, None), 0),
    "a rule with ports covers its port": (["8.0.0.0/8 tcp/443"], ("8.8.8.8", TCP, 443), 0),
    "a rule with ports covers no other port": (["8.0.0.0/8 tcp/443"], ("8.8.8.8", TCP, 444), None),
    "a rule with ports covers no other protocol": (["8.0.0.0/8 tcp/443"], ("8.8.8.8", UDP, 443), None),
    "ports of both protocols cover no third one": (["8.0.0.0/8 any/1-65535"], ("8.8.8.8", ICMP, None), None),
    "ports of both protocols do not cover SCTP": (["8.0.0.0/8 any/1-65535"], ("8.8.8.8", 132, 80), None),
    "all ports are not port 0": (["8.0.0.0/8 any/1-65535"], ("8.8.8.8", TCP, 0), None),
    "without a port only a rule for all of them counts": (
        ["8.0.0.0/8 tcp/1-65535", "8.0.0.0/8"],
        ("8.8.8.8", TCP, None),
        1,
    ),
    "the first listed wins over the narrower": (["0.0.0.0/0", "8.8.8.8/32"], ("8.8.8.8", TCP, 1), 0),
    "the first listed wins over the wider": (["8.8.8.8/32", "0.0.0.0/0"], ("8.8.8.8", TCP, 1), 0),
    "a rule that does not cover the port is passed over": (["8.8.8.8/32 tcp/2", "0.0.0.0/0"], ("8.8.8.8", TCP, 1), 1),
    "rules of one network: the first listed that covers": (
        ["8.0.0.0/8 tcp/80-90", "8.0.0.0/8 tcp/85-95"],
        ("8.8.8.8", TCP, 92),
        1,
    ),
    "outside the network": (["8.0.0.0/8"], ("9.0.0.0", TCP, 1), None),
}


@pytest.mark.parametrize(("rules", "target", "position"), CASES.values(), ids=CASES.keys())
def test_find(rules: list[str], target: tuple[str, int, int | None], position: int | None) -> None:
    address, protocol, port = target
    index = index_cidrs([make_rule(rule) for rule in rules])
    assert index.find(int(IPv4Address(address)), protocol, port, is_conditional=False) == position


def test_in_a_conditional_range_only_rules_inside_one_count() -> None:
    index = index_cidrs([make_rule("0.0.0.0/0"), make_rule("10.0.0.0/8 tcp/1"), make_rule("10.0.0.0/7")])
    address = int(IPv4Address("10.1.1.1"))
    assert index.find(address, TCP, 1, is_conditional=True) == 1
    assert index.find(address, TCP, 2, is_conditional=True) is None
    assert index.find_nearest(address, is_conditional=True) == 1
    assert index.find_nearest(address, is_conditional=False) == 0


def test_nearest_is_the_first_listed_that_names_the_address() -> None:
    index = index_cidrs([make_rule("8.8.0.0/16 tcp/1"), make_rule("8.0.0.0/8 udp/1")])
    assert index.find_nearest(int(IPv4Address("8.8.8.8")), is_conditional=False) == 0
    assert index.find_nearest(int(IPv4Address("8.9.8.8")), is_conditional=False) == 1
    assert index.find_nearest(int(IPv4Address("9.9.8.8")), is_conditional=False) is None


def test_rules_are_grouped_by_network() -> None:
    groups = group_rules([make_rule("8.0.0.0/8 tcp/1"), make_rule("10.0.0.0/8"), make_rule("8.0.0.0/8")])
    assert [(str(group.network), group.nearest, group.unrestricted) for group in groups] == [
        ("8.0.0.0/8", 0, 2),
        ("10.0.0.0/8", 1, 1),
    ]
    assert [group.is_conditional for group in groups] == [False, True]


def covers(rule: CidrRule, address: IPv4Address, protocol: int, port: int | None) -> bool:
    if address not in rule.network:
        return False
    return not rule.ports or (port is not None and any(span.covers(protocol, port) for span in rule.ports))


@given(st.lists(cidr_rules, max_size=6), st.data())
def test_found_as_by_a_walk_over_the_list(rules: list[CidrRule], data: st.DataObject) -> None:
    address = data.draw(addresses_near(rules))
    protocol = data.draw(st.sampled_from([TCP, UDP, ICMP, 132]))
    port = data.draw(st.none() | ports(rules))
    expected = next((i for i, rule in enumerate(rules) if covers(rule, address, protocol, port)), None)
    assert index_cidrs(rules).find(int(address), protocol, port, is_conditional=False) == expected
