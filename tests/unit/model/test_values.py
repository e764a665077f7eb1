"""The plain values: how they read, and that their defaults are the narrowest."""

import dataclasses

from outgate.model.plan import GRANT_LAST, MARK_RESET_SENT, grant_of_allow_all
from outgate.model.policy import EGRESS_FLAGS, EGRESS_LISTS, EgressRules
from outgate.model.verdict import RuleRef
from support.policies import make_rule


def test_bare_egress_rules_allow_nothing() -> None:
    rules = EgressRules()
    assert not any(getattr(rules, field) for field in EgressRules.__slots__)


def test_the_names_of_flags_and_lists_are_all_of_what_opens() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(EgressRules)}
    assert [name for name, default in fields.items() if default is False] == list(EGRESS_FLAGS)
    assert [name for name, default in fields.items() if default == ()] == list(EGRESS_LISTS)


def test_a_cidr_rule_reads_as_network_and_ports() -> None:
    assert str(make_rule("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(make_rule("10.0.0.0/8 tcp/443 udp/53-54 any/1")) == "10.0.0.0/8 tcp/443, udp/53-54, tcp+udp/1"


def test_a_rule_reference_reads_as_its_place_and_text() -> None:
    assert str(RuleRef("allowed_hostnames", 2, "*.github.com")) == "allowed_hostnames[2] *.github.com"
    assert str(RuleRef("allow_all")) == "allow_all"
    assert str(RuleRef("allow_mcp_gateway", None, "mcp.example")) == "allow_mcp_gateway mcp.example"


def test_the_grant_of_allow_all_is_nobody_elses() -> None:
    assert grant_of_allow_all(1) == 0x8000_0001
    assert grant_of_allow_all(1) > GRANT_LAST
    assert grant_of_allow_all(1) != MARK_RESET_SENT
