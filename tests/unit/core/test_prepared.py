"""A prepared policy finds its rules, and those of its flags, and takes from the context only what stands behind flags."""

from ipaddress import ip_address

from outgate.core.prepared import prepare_policy
from outgate.model.flow import HostContext
from outgate.model.names import parse_domain_name, parse_host_pattern
from support.policies import make_policy

CONTEXT = HostContext(mirror_hosts=(parse_host_pattern("*.mirror.example"),))


def test_it_finds_the_rule_of_a_name_and_no_rule_for_others() -> None:
    prepared = prepare_policy(make_policy("pypi.org", "*.GitHub.com", allow_runloop_mirrors=True), CONTEXT)
    found = prepared.find_host_rule(parse_domain_name("api.github.com"))
    assert found is not None
    assert (found.pattern, str(found.allow.rule)) == (
        parse_host_pattern("*.github.com"),
        "allowed_hostnames[1] *.GitHub.com",
    )
    mirror = prepared.find_host_rule(parse_domain_name("a.mirror.example"))
    assert mirror is not None
    assert str(mirror.allow.rule) == "allow_runloop_mirrors *.mirror.example"
    assert prepared.find_host_rule(parse_domain_name("evil.example")) is None


def test_allow_all_is_no_host_rule() -> None:
    prepared = prepare_policy(make_policy(allow_all=True), CONTEXT)
    assert prepared.is_allow_all
    assert prepared.find_host_rule(parse_domain_name("pypi.org")) is None


def test_a_flag_that_is_off_opens_nothing() -> None:
    assert prepare_policy(make_policy(), CONTEXT).host_rules == ()


def test_the_apex_of_a_wildcard_is_known_as_such() -> None:
    prepared = prepare_policy(make_policy("*.github.com", "pypi.org"), CONTEXT)
    near = prepared.find_apex_wildcard(parse_domain_name("github.com"))
    assert str(near) == "allowed_hostnames[0] *.github.com"
    assert prepared.find_apex_wildcard(parse_domain_name("api.github.com")) is None
    assert prepared.find_apex_wildcard(parse_domain_name("pypi.org")) is None


def test_the_hosts_addresses_are_no_part_of_it() -> None:
    policy = make_policy("pypi.org", cidrs=["8.0.0.0/8"])
    other = HostContext(host_addresses=frozenset({ip_address("8.8.8.8")}), mirror_hosts=CONTEXT.mirror_hosts)
    assert prepare_policy(policy, CONTEXT) == prepare_policy(policy, other)
