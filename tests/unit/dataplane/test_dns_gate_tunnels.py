"""Tunnel names at the DNS gate: answered from here or denied from here, and never asked of anybody."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from outgate.model.flow import HostContext
from outgate.model.names import DomainName
from outgate.model.policy import NetworkPolicy
from outgate.model.tunnels import make_tunnel_key
from support.gate_harness import Harness, devbox
from support.policies import make_policy

DOMAIN = DomainName("tunnel.example.com")
CONTEXT = HostContext(
    tunnel_domain=DOMAIN, tunnel_addresses=frozenset({ip_address("10.213.0.1"), ip_address("fd13::1")})
)
BOX = devbox(1, "npol_1")
OWN = f"3000-{make_tunnel_key(BOX.account_id, bytes(10))}.{DOMAIN}"
OTHERS = f"3000-{make_tunnel_key('acct_other', bytes(10))}.{DOMAIN}"


def with_flag(policy: NetworkPolicy) -> NetworkPolicy:
    return replace(policy, egress=replace(policy.egress, allow_devbox_to_devbox=True))


def harness(policy: NetworkPolicy, context: HostContext = CONTEXT) -> Harness:
    return Harness(policy, devboxes=(BOX,), context=context)


@pytest.mark.parametrize("policy", [with_flag(make_policy()), make_policy(allow_all=True), make_policy(f"*.{DOMAIN}")])
def test_an_allowed_tunnel_is_at_the_gateway(policy: NetworkPolicy) -> None:
    gate = harness(policy)
    assert gate.ask(OWN).addresses == {"10.213.0.1"}
    assert gate.ask(OWN.upper(), "AAAA").addresses == {"fd13::1"}
    empty = gate.ask(OWN, "HTTPS")
    assert (empty.code, empty.message.answer) == ("NOERROR", [])
    assert gate.upstream.asked == []
    assert gate.sets.pins == {}, "nothing is pinned"


@pytest.mark.parametrize(
    ("policy", "name", "reason"),
    [
        (make_policy(), OWN, "tunnel_not_allowed"),
        (make_policy("example.com"), OWN, "tunnel_not_allowed"),
        (with_flag(make_policy()), OTHERS, "tunnel_of_others"),
        (make_policy(allow_all=True), OTHERS, "tunnel_of_others"),
        (make_policy(allow_all=True), f"www.{DOMAIN}", "no_tunnel"),
        (make_policy(allow_all=True), str(DOMAIN), "no_tunnel"),
        (make_policy(f"*.{DOMAIN}"), f"data.{OWN}", "no_tunnel"),
    ],
)
def test_every_other_name_below_the_domain_is_denied_and_stays_here(
    policy: NetworkPolicy, name: str, reason: str
) -> None:
    gate = harness(policy)
    for kind in ("A", "AAAA", "TXT"):
        client = gate.ask(name, kind, edns=0)
        assert client.code == "NXDOMAIN"
    assert gate.upstream.asked == []
    gate.wait(1)
    assert {record.reason for record in gate.records} == {reason}


def test_names_that_merely_end_alike_are_ordinary_names() -> None:
    gate = harness(make_policy("xtunnel.example.com"))
    gate.ask("xtunnel.example.com")
    assert len(gate.upstream.asked) == 1


def test_without_ipv6_there_is_no_second_address() -> None:
    only4 = replace(CONTEXT, tunnel_addresses=frozenset({ip_address("10.213.0.1")}))
    gate = harness(make_policy(allow_all=True), only4)
    empty = gate.ask(OWN, "AAAA")
    assert (empty.code, empty.message.answer) == ("NOERROR", [])


def test_where_tunnels_are_off_the_names_are_like_any_other() -> None:
    gate = harness(make_policy(allow_all=True), HostContext())
    gate.ask(OWN)
    assert len(gate.upstream.asked) == 1
