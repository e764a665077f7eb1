"""Who may use a tunnel: by the flag for the own account, by name for anybody, never by anything else."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.decide import decide_flow, decide_tunnel, decide_tunnel_flow
from outgate.model.flow import BadHandshake, Handshake, HostContext, Opaque, Unseen
from outgate.model.names import DomainName, parse_domain_name
from outgate.model.policy import NetworkPolicy
from outgate.model.tunnels import (
    KEY_RANDOM_BYTES,
    TunnelName,
    is_below_tunnel_domain,
    is_key_of_account,
    make_tunnel_key,
    parse_tunnel_name,
)
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, Verdict
from support.policies import http, make_flow, make_policy, prepare, tls

DOMAIN = DomainName("tunnel.example.com")
GATEWAY = ip_address("10.213.0.1")
CONTEXT = HostContext(tunnel_domain=DOMAIN, tunnel_addresses=frozenset({GATEWAY}))
OWN = DomainName(f"3000-{make_tunnel_key('acct_a', bytes(10))}.{DOMAIN}")
OTHERS = DomainName(f"3000-{make_tunnel_key('acct_b', bytes(10))}.{DOMAIN}")


def with_flag(policy: NetworkPolicy) -> NetworkPolicy:
    return replace(policy, egress=replace(policy.egress, allow_devbox_to_devbox=True))


def reason_of(verdict: Verdict) -> AllowReason | DenyReason:
    assert isinstance(verdict, Allow | Deny)
    return verdict.reason


NONE = make_policy()
FLAG = with_flag(make_policy())
ALL = make_policy(allow_all=True)
NAMED = make_policy(OTHERS)
ANY = make_policy(f"*.{DOMAIN}")
BOTH = with_flag(NAMED)

CASES: dict[str, tuple[NetworkPolicy, str, AllowReason | DenyReason, str | None]] = {
    "the flag opens the own account's": (FLAG, OWN, AllowReason.DEVBOX_TO_DEVBOX, "allow_devbox_to_devbox"),
    "allow_all includes the flag": (ALL, OWN, AllowReason.DEVBOX_TO_DEVBOX, "allow_all"),
    "without the flag it is closed": (NONE, OWN, DenyReason.TUNNEL_NOT_ALLOWED, None),
    "other rules do not open it": (make_policy("example.com"), OWN, DenyReason.TUNNEL_NOT_ALLOWED, None),
    "the flag opens nobody else's": (FLAG, OTHERS, DenyReason.TUNNEL_OF_OTHERS, None),
    "allow_all opens nobody else's": (ALL, OTHERS, DenyReason.TUNNEL_OF_OTHERS, None),
    "a name opens another account's": (NAMED, OTHERS, AllowReason.HOSTNAME, f"allowed_hostnames[0] {OTHERS}"),
    "a name opens that one only": (NAMED, OWN, DenyReason.TUNNEL_NOT_ALLOWED, None),
    "a wildcard opens all": (ANY, OTHERS, AllowReason.HOSTNAME, f"allowed_hostnames[0] *.{DOMAIN}"),
    "flag and name, each for its own": (BOTH, OTHERS, AllowReason.HOSTNAME, f"allowed_hostnames[0] {OTHERS}"),
    "the domain itself is no tunnel": (ALL, DOMAIN, DenyReason.NO_TUNNEL, None),
    "nor is what has no port": (ANY, f"www.{DOMAIN}", DenyReason.NO_TUNNEL, None),
    "nor is what lies deeper": (ANY, f"a.{OWN}", DenyReason.NO_TUNNEL, None),
    "nor is a name elsewhere": (ALL, "example.com", DenyReason.NO_TUNNEL, None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_tunnel(case: tuple[NetworkPolicy, str, AllowReason | DenyReason, str | None]) -> None:
    policy, name, reason, rule = case
    verdict = decide_tunnel(prepare(policy, CONTEXT), "acct_a", parse_domain_name(name), CONTEXT)
    assert isinstance(verdict, Allow if isinstance(reason, AllowReason) else Deny)
    assert verdict.reason is reason
    assert (None if verdict.rule is None else str(verdict.rule)) == rule


def test_sentences_say_what_to_change() -> None:
    denied = decide_tunnel(prepare(NONE, CONTEXT), "acct_a", OWN, CONTEXT)
    assert isinstance(denied, Deny)
    assert denied.sentence == (
        f"{OWN} is a tunnel of this account, and policy 'ci' (npol_1) does not open tunnels: "
        "set allow_devbox_to_devbox, or add the name to allowed_hostnames."
    )


def test_where_tunnels_are_off_nothing_is_one() -> None:
    off = HostContext()
    assert reason_of(decide_tunnel(prepare(ALL, off), "acct_a", OWN, off)) is DenyReason.NO_TUNNEL
    assert not is_below_tunnel_domain(OWN, None)


@pytest.mark.parametrize(
    ("handshake", "port", "reason"),
    [
        (tls(OWN), 443, AllowReason.DEVBOX_TO_DEVBOX),
        (http(OWN), 80, AllowReason.DEVBOX_TO_DEVBOX),
        (http(OWN), 443, AllowReason.DEVBOX_TO_DEVBOX),
        (tls(OWN), 8443, DenyReason.NO_HANDSHAKE),
        (tls(None), 443, DenyReason.NO_NAME),
        (http(None), 80, DenyReason.NO_NAME),
        (tls("example.com"), 443, DenyReason.NO_TUNNEL),
        (Opaque(), 443, DenyReason.NOT_WEB),
        (Unseen(), 443, DenyReason.NO_HANDSHAKE),
        (BadHandshake("odd"), 443, DenyReason.BAD_HANDSHAKE),
    ],
    ids=str,
)
def test_a_flow_to_the_tunnels(handshake: Handshake, port: int, reason: AllowReason | DenyReason) -> None:
    verdict = decide_tunnel_flow(prepare(ALL, CONTEXT), "acct_a", port, handshake, CONTEXT)
    assert reason_of(verdict) is reason


@pytest.mark.parametrize("policy", [ALL, FLAG, ANY], ids=["all", "flag", "any"])
def test_as_an_ordinary_flow_the_gateway_stays_closed(policy: NetworkPolicy) -> None:
    context = replace(CONTEXT, devbox_networks=(make_pool(),))
    verdict = decide_flow(prepare(policy, context), make_flow(f"tcp {GATEWAY} 443", tls(OWN)), (OWN,), context)
    assert reason_of(verdict) is DenyReason.FLOOR_DEVBOX


def make_pool() -> IPv4Network:
    return IPv4Network("10.213.0.0/20")


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.binary(min_size=10, max_size=10))
def test_a_key_belongs_to_its_account_and_spells_a_name(account: str, other: str, random: bytes) -> None:
    key = make_tunnel_key(account, random)
    assert len(random) == KEY_RANDOM_BYTES
    assert is_key_of_account(key, account)
    assert is_key_of_account(key, other) is (account == other)
    assert parse_tunnel_name(parse_domain_name(f"65535-{key}.{DOMAIN}"), DOMAIN) == TunnelName(65535, key)


@pytest.mark.parametrize("label", ["0-KEY", "65536-KEY", "03-KEY", "-KEY", "3000", "3000KEY", "3000-KEYx", "3000-8KEY"])
def test_labels_that_name_no_tunnel(label: str) -> None:
    text = label.replace("KEY", make_tunnel_key("acct_a", bytes(10)))
    assert parse_tunnel_name(f"{text}.{DOMAIN}", DOMAIN) is None
