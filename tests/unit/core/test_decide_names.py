"""Verdicts on names and on the addresses they resolve to, one sentence each: verdict, reason, rule, words."""

from ipaddress import ip_address, ip_network

import pytest

from outgate.core.decide import decide_answer, decide_lookup, decide_teach, floor_class
from outgate.model.flow import HostContext
from outgate.model.names import parse_domain_name, parse_host_pattern
from outgate.model.policy import NetworkPolicy
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, RuleRef, Verdict
from support.policies import make_policy, names, prepare

CONTEXT = HostContext(
    host_addresses=frozenset(map(ip_address, ("192.168.7.1", "203.0.113.9", "2a00:1450::9"))),
    devbox_networks=(ip_network("10.213.0.0/20"), ip_network("fd77::/64")),
    internal_zones=names("corp.example"),
    agent_gateway_hosts=(parse_host_pattern("agents.example"),),
    mcp_gateway_hosts=(parse_host_pattern("*.mcp.example"),),
    mirror_hosts=(parse_host_pattern("mirror.example"), parse_host_pattern("pypi.org")),
)

GITHUB = RuleRef("allowed_hostnames", 0, "*.github.com")


def outcome(verdict: Verdict) -> tuple[type[Verdict], AllowReason | DenyReason, str | None]:
    assert isinstance(verdict, Allow | Deny)
    return type(verdict), verdict.reason, None if verdict.rule is None else str(verdict.rule)


LOOKUPS: dict[str, tuple[NetworkPolicy, str, AllowReason | DenyReason, str | None]] = {
    "an empty policy allows no name": (make_policy(), "pypi.org", DenyReason.NAME_NOT_ALLOWED, None),
    "a listed name is allowed by its entry": (
        make_policy("a.example", "PyPI.org."), "pypi.org", AllowReason.HOSTNAME, "allowed_hostnames[1] PyPI.org.",
    ),
    "a name below a wildcard is allowed by the wildcard": (
        make_policy("*.github.com"), "api.github.com", AllowReason.HOSTNAME, "allowed_hostnames[0] *.github.com",
    ),
    "an exact entry is named before a wildcard": (
        make_policy("*.github.com", "api.github.com"),
        "api.github.com",
        AllowReason.HOSTNAME,
        "allowed_hostnames[1] api.github.com",
    ),
    "a wildcard's own apex is denied, and the wildcard is named as what came nearest": (
        make_policy("*.github.com"),
        "github.com",
        DenyReason.NAME_NOT_ALLOWED,
        "allowed_hostnames[0] *.github.com",
    ),
    "allow_all allows every name": (
        make_policy(allow_all=True), "anything.example", AllowReason.ALLOW_ALL, "allow_all",
    ),
    "a CIDR rule opens no name": (
        make_policy(cidrs=["0.0.0.0/0"]), "pypi.org", DenyReason.NAME_NOT_ALLOWED, None,
    ),
    "the agent gateway is closed without its flag": (
        make_policy(), "agents.example", DenyReason.NAME_NOT_ALLOWED, None,
    ),
    "allow_agent_gateway opens the hosts the operator lists for it": (
        make_policy(allow_agent_gateway=True),
        "agents.example",
        AllowReason.HOSTNAME,
        "allow_agent_gateway agents.example",
    ),
    "allow_agent_gateway opens no other flag's hosts": (
        make_policy(allow_agent_gateway=True), "mirror.example", DenyReason.NAME_NOT_ALLOWED, None,
    ),
    "allow_mcp_gateway opens the hosts the operator lists for it": (
        make_policy(allow_mcp_gateway=True),
        "x.mcp.example",
        AllowReason.HOSTNAME,
        "allow_mcp_gateway *.mcp.example",
    ),
    "allow_runloop_mirrors opens the hosts the operator lists for it": (
        make_policy(allow_runloop_mirrors=True),
        "mirror.example",
        AllowReason.HOSTNAME,
        "allow_runloop_mirrors mirror.example",
    ),
    "the account's own entry is named before a flag's": (
        make_policy("pypi.org", allow_runloop_mirrors=True),
        "pypi.org",
        AllowReason.HOSTNAME,
        "allowed_hostnames[0] pypi.org",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "name", "reason", "rule"), LOOKUPS.values(), ids=LOOKUPS.keys())
def test_lookup(policy: NetworkPolicy, name: str, reason: AllowReason | DenyReason, rule: str | None) -> None:
    verdict = decide_lookup(prepare(policy, CONTEXT), parse_domain_name(name), CONTEXT)
    kind = Allow if isinstance(reason, AllowReason) else Deny
    assert outcome(verdict) == (kind, reason, rule)


FLOORS: dict[str, DenyReason | None] = {
    "8.8.8.8": None,
    "127.0.0.1": DenyReason.FLOOR_LOOPBACK,
    "192.168.7.1": DenyReason.FLOOR_HOST,
    "192.168.7.2": DenyReason.FLOOR_PRIVATE,
    "203.0.113.9": DenyReason.FLOOR_HOST,
    "2a00:1450::9": DenyReason.FLOOR_HOST,
    "10.213.0.0": DenyReason.FLOOR_DEVBOX,
    "10.213.15.255": DenyReason.FLOOR_DEVBOX,
    "10.213.16.0": DenyReason.FLOOR_PRIVATE,
    "fd77::5": DenyReason.FLOOR_DEVBOX,
    "fd77:0:0:1::5": DenyReason.FLOOR_UNIQUE_LOCAL,
    "::ffff:192.168.7.1": DenyReason.FLOOR_HOST,
    "64:ff9b::192.168.7.1": DenyReason.FLOOR_HOST,
    "64:ff9b::203.0.113.9": DenyReason.FLOOR_HOST,
    "2002:cb00:7109::1": DenyReason.FLOOR_HOST,
    "::ffff:10.213.0.5": DenyReason.FLOOR_DEVBOX,
    "64:ff9b::10.213.0.5": DenyReason.FLOOR_DEVBOX,
    "2002:ad5:5::1": DenyReason.FLOOR_DEVBOX,
    "64:ff9b:1::10.213.0.5": DenyReason.FLOOR_EMBEDDED,
}


@pytest.mark.parametrize(("text", "reason"), FLOORS.items(), ids=FLOORS.keys())
def test_floor_class_knows_the_hosts_and_the_devboxes_addresses(text: str, reason: DenyReason | None) -> None:
    assert floor_class(ip_address(text), CONTEXT) is reason


NAMED = make_policy("db.example", "*.corp.example")
WITH_PORT = make_policy("db.example", cidrs=["10.0.0.0/8 tcp/5432"])
WITHOUT_PORT = make_policy("db.example", cidrs=["10.0.0.0/8"])
TOO_WIDE = make_policy("db.example", cidrs=["0.0.0.0/0"])
ALL = make_policy(allow_all=True)
NAME, WIDE = AllowReason.HOSTNAME, AllowReason.ALLOW_ALL
PRIVATE = DenyReason.FLOOR_PRIVATE

# What (1) the DNS gate may hand out, and (2) the relay may dial without and (3) with the port 5432, (4) with 443.
ANSWERS: dict[str, tuple[NetworkPolicy, str, str, tuple[AllowReason | DenyReason, ...]]] = {
    "an ordinary address of a covered name": (NAMED, "db.example", "8.8.8.8", (NAME,) * 4),
    "an ordinary IPv6 address of a covered name": (NAMED, "db.example", "2606:4700::1", (NAME,) * 4),
    "an address of a name that nothing covers": (
        NAMED, "evil.example", "8.8.8.8", (DenyReason.NAME_NOT_ALLOWED,) * 4,
    ),
    "a private address of a covered name": (NAMED, "db.example", "10.0.0.5", (PRIVATE,) * 4),
    "a private address behind a mapped one": (NAMED, "db.example", "::ffff:10.0.0.5", (PRIVATE,) * 4),
    "a private address behind NAT64": (NAMED, "db.example", "64:ff9b::10.0.0.5", (PRIVATE,) * 4),
    "a private address that a CIDR rule opens on one port": (
        WITH_PORT, "db.example", "10.0.0.5", (AllowReason.CIDR, PRIVATE, AllowReason.CIDR, PRIVATE),
    ),
    "a mapped private address that a CIDR rule opens on one port": (
        WITH_PORT, "db.example", "::ffff:10.0.0.5", (AllowReason.CIDR, PRIVATE, AllowReason.CIDR, PRIVATE),
    ),
    "a private address that a CIDR rule opens on every port": (
        WITHOUT_PORT, "db.example", "10.0.0.5", (AllowReason.CIDR,) * 4,
    ),
    "a private address that a rule for everything covers": (TOO_WIDE, "db.example", "10.0.0.5", (PRIVATE,) * 4),
    "a private NAT64 address that a CIDR rule covers only inside": (
        WITHOUT_PORT, "db.example", "64:ff9b::10.0.0.5", (PRIVATE,) * 4,
    ),
    "a CIDR rule does not make up for a name that nothing covers": (
        WITHOUT_PORT, "evil.example", "10.0.0.5", (DenyReason.NAME_NOT_ALLOWED,) * 4,
    ),
    "a private address of a name in an internal zone": (NAMED, "git.corp.example", "10.0.0.5", (NAME,) * 4),
    "a unique local address of a name in an internal zone": (NAMED, "git.corp.example", "fd00::5", (NAME,) * 4),
    "an internal zone that no rule covers": (
        make_policy("db.example"), "git.corp.example", "10.0.0.5", (DenyReason.NAME_NOT_ALLOWED,) * 4,
    ),
    "a name that only ends like an internal zone": (
        make_policy("evilcorp.example"), "evilcorp.example", "10.0.0.5", (PRIVATE,) * 4,
    ),
    "an internal zone's own name": (make_policy("corp.example"), "corp.example", "10.0.0.5", (NAME,) * 4),
    "an internal name that resolves to the host": (
        NAMED, "git.corp.example", "192.168.7.1", (DenyReason.FLOOR_HOST,) * 4,
    ),
    "an internal name that resolves to a devbox": (
        NAMED, "git.corp.example", "10.213.0.5", (DenyReason.FLOOR_DEVBOX,) * 4,
    ),
    "an internal name that resolves to loopback": (
        NAMED, "git.corp.example", "127.0.0.1", (DenyReason.FLOOR_LOOPBACK,) * 4,
    ),
    "an internal name that resolves to metadata": (
        NAMED, "git.corp.example", "100.100.100.200", (DenyReason.FLOOR_METADATA,) * 4,
    ),
    "a reserved address": (NAMED, "db.example", "198.51.100.1", (DenyReason.FLOOR_RESERVED,) * 4),
    "allow_all: an ordinary address": (ALL, "any.example", "8.8.8.8", (WIDE,) * 4),
    "allow_all: a private address": (ALL, "any.example", "10.0.0.5", (WIDE,) * 4),
    "allow_all: a metadata address": (ALL, "any.example", "169.254.169.254", (DenyReason.FLOOR_METADATA,) * 4),
    "allow_all: the host": (ALL, "any.example", "192.168.7.1", (DenyReason.FLOOR_HOST,) * 4),
    "allow_all: a devbox": (ALL, "any.example", "::ffff:10.213.0.5", (DenyReason.FLOOR_DEVBOX,) * 4),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "name", "address", "reasons"), ANSWERS.values(), ids=ANSWERS.keys())
def test_address_of_a_name(
    policy: NetworkPolicy, name: str, address: str, reasons: tuple[AllowReason | DenyReason, ...]
) -> None:
    prepared, asked, resolved = prepare(policy, CONTEXT), parse_domain_name(name), ip_address(address)
    verdicts = (
        decide_teach(prepared, asked, resolved, CONTEXT),
        decide_answer(prepared, asked, resolved, CONTEXT),
        decide_answer(prepared, asked, resolved, CONTEXT, port=5432),
        decide_answer(prepared, asked, resolved, CONTEXT, port=443),
    )
    kinds = tuple(Allow if isinstance(reason, AllowReason) else Deny for reason in reasons)
    assert tuple(outcome(verdict)[:2] for verdict in verdicts) == tuple(zip(kinds, reasons, strict=True))


def test_the_rule_that_opens_a_private_answer_is_named() -> None:
    prepared = prepare(make_policy("db.example", cidrs=["8.0.0.0/8", "10.0.0.0/8 tcp/5432"]))
    verdict = decide_teach(prepared, parse_domain_name("db.example"), ip_address("10.0.0.5"), HostContext())
    assert verdict == Allow(
        AllowReason.CIDR,
        RuleRef("allowed_cidrs", 1, "10.0.0.0/8 tcp/5432"),
        "allowed_cidrs[1] 10.0.0.0/8 tcp/5432 of policy 'ci' (npol_1) covers it.",
    )


SENTENCES: dict[str, tuple[NetworkPolicy, str, str | None, str]] = {
    "name not covered": (
        NAMED, "pypi.org", None, "pypi.org is not covered by policy 'ci' (npol_1): add it to allowed_hostnames.",
    ),
    "apex of a wildcard": (
        make_policy("*.github.com"),
        "github.com",
        None,
        ("github.com is not covered by policy 'ci' (npol_1): add it to allowed_hostnames. "
        "(allowed_hostnames[0] *.github.com covers the names below it, not github.com itself.)"),
    ),
    "covered by a rule": (
        NAMED, "db.example", None, "allowed_hostnames[0] db.example of policy 'ci' (npol_1) covers it.",
    ),
    "covered by a flag": (
        make_policy(allow_mcp_gateway=True),
        "x.mcp.example",
        None,
        "allow_mcp_gateway *.mcp.example of policy 'ci' (npol_1) covers it.",
    ),
    "allow_all": (ALL, "x.example", None, "Everything is allowed by policy 'ci' (npol_1)."),
    "private answer": (
        NAMED, "db.example", "10.0.0.5",
        ("db.example resolves to 10.0.0.5, which is a private address: add 10.0.0.5/32 or more of 10.0.0.0/8 "
        "to allowed_cidrs of policy 'ci' (npol_1)."),
    ),
    "private answer that a rule covers on other ports": (
        WITH_PORT, "db.example", "10.0.0.5",
        ("db.example resolves to 10.0.0.5, which is a private address: add 10.0.0.5/32 or more of 10.0.0.0/8 "
        "to allowed_cidrs of policy 'ci' (npol_1). "
        "(allowed_cidrs[0] 10.0.0.0/8 tcp/5432 covers the address on other ports or protocols.)"),
    ),
    "unique local answer": (
        NAMED, "db.example", "fd00::5",
        ("db.example resolves to fd00::5, which is a unique local address: only allow_all opens it, "
        "or an internal zone (OUTGATE_INTERNAL_ZONES) that holds its name."),
    ),
    "metadata answer": (
        NAMED, "db.example", "169.254.169.254",
        "db.example resolves to 169.254.169.254, which is a cloud metadata address: no policy opens it.",
    ),
    "devbox answer": (
        NAMED, "db.example", "10.213.0.5",
        ("db.example resolves to 10.213.0.5, which is an address of the devbox network: "
        "devboxes reach each other through tunnels only."),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("policy", "name", "address", "sentence"), SENTENCES.values(), ids=SENTENCES.keys())
def test_sentence(policy: NetworkPolicy, name: str, address: str | None, sentence: str) -> None:
    prepared, asked = prepare(policy, CONTEXT), parse_domain_name(name)
    if address is None:
        verdict = decide_lookup(prepared, asked, CONTEXT)
    else:
        verdict = decide_answer(prepared, asked, ip_address(address), CONTEXT)
    assert isinstance(verdict, Allow | Deny)
    assert verdict.sentence == sentence
