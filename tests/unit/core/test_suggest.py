"""Suggested allow lists: they cover what was seen, no more than they must, and nothing that belongs to many."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outgate.control.public_suffixes import is_shared
from outgate.core.advice import AdviceCode, advise_policy
from outgate.core.decide import decide_flow, decide_lookup, prepare_policy
from outgate.core.seen import Seen
from outgate.core.suggest import AllowList, LeftOutReason, suggest
from outgate.model.addresses import Protocol
from outgate.model.flow import Flow, HostContext, TlsHello, Unseen
from outgate.model.names import DomainName, HostPattern, parse_domain_name
from outgate.model.policy import CidrRule, EgressRules, NetworkPolicy
from outgate.model.verdict import Allow
from support.policies import make_policy, prepare

CONTEXT = HostContext(tunnel_domain=DomainName("tunnel.example"))


def seen(name: str | None = None, address: str | None = None, port: int | None = 443, **other: Any) -> Seen:
    values: dict[str, Any] = {
        "name": None if name is None else parse_domain_name(name),
        "address": None if address is None else ip_address(address),
        "port": port,
        "protocol": Protocol.TCP,
        "is_lookup": address is None,
        "verdict": "report_only",
        "reason": "not_resolved",
        "devbox_id": "dbx_1",
        "count": 1,
        "first_ms": 1000,
        "last_ms": 2000,
    }
    return Seen(**(values | other))


def find(*rows: Seen, policy: NetworkPolicy | None = None) -> AllowList:
    return suggest(rows, prepare(make_policy() if policy is None else policy, CONTEXT), CONTEXT, is_shared)


def hosts(found: AllowList) -> list[str]:
    return [str(one.entry) for one in found.hostnames]


def cidrs(found: AllowList) -> list[str]:
    return [str(one.entry) for one in found.cidrs]


def test_names_are_exact_until_there_are_four_siblings() -> None:
    few = find(*(seen(f"{label}.example.com", "8.8.8.8") for label in "abc"))
    assert sorted(hosts(few)) == ["a.example.com", "b.example.com", "c.example.com"]
    assert hosts(find(*(seen(f"{label}.example.com", "8.8.8.8") for label in "abcd"))) == ["*.example.com"]
    assert cidrs(few) == []


def test_the_parent_itself_and_what_lies_elsewhere_stay_exact() -> None:
    rows = [seen(f"{label}.example.com", "8.8.8.8") for label in "abcd"]
    found = find(*rows, seen("example.com", "8.8.8.8"), seen("deep.a.example.com", "8.8.8.8"), seen("x.org", "1.1.1.1"))
    assert sorted(hosts(found)) == ["*.example.com", "example.com", "x.org"]


@pytest.mark.parametrize(
    "parent", ["com", "co.uk", "github.io", "s3.amazonaws.com", "amazonaws.com", "r2.dev", "compute.amazonaws.com"]
)
def test_no_wildcard_over_names_of_many_owners(parent: str) -> None:
    found = find(*(seen(f"{label}.{parent}", "8.8.8.8") for label in "abcdefgh"))
    assert sorted(hosts(found)) == [f"{label}.{parent}" for label in "abcdefgh"]


def test_names_that_look_like_carried_data_are_left_out_with_a_warning() -> None:
    rows = [seen(f"{number:032x}.t.evil.example", address=None) for number in range(1, 20)]
    found = find(*rows, seen("evil.example", "8.8.8.8"))
    assert hosts(found) == ["evil.example"]
    (left,) = found.left_out
    assert (left.what, left.reason, left.evidence.name_count) == ("*.evil.example", LeftOutReason.DNS_TUNNEL, 19)
    (advice,) = found.advice
    assert advice.code is AdviceCode.DNS_TUNNEL
    assert "evil.example" in advice.text


def test_names_that_were_connected_to_carry_nothing() -> None:
    rows = [seen(f"{number:032x}.cdn.example", "8.8.8.8") for number in range(1, 20)]
    assert hosts(find(*rows)) == ["*.cdn.example"]


def test_addresses_without_a_name_are_told_with_their_ports() -> None:
    found = find(
        seen(None, "8.8.8.8", 22),
        seen(None, "8.8.8.8", 23),
        seen(None, "8.8.8.8", 53, protocol=Protocol.UDP),
        seen(None, "1.1.1.1", None, protocol=Protocol.ICMP),
        *(seen(None, f"9.9.9.{number}", 443) for number in (4, 5, 6, 7)),
    )
    assert sorted(cidrs(found)) == ["1.1.1.1/32", "8.8.8.8/32 tcp/22-23, udp/53", "9.9.9.4/30 tcp/443"]


def test_a_private_address_needs_a_network_besides_its_name() -> None:
    found = find(seen("git.corp.example", "10.1.2.3", reason="floor_private", verdict="deny"))
    assert (hosts(found), cidrs(found)) == (["git.corp.example"], ["10.1.2.3/32 tcp/443"])


def test_what_names_cannot_cover_is_allowed_by_address() -> None:
    found = find(seen("a.example", "8.8.8.8", reason="no_name"), seen("a.example", "8.8.4.4", 853))
    assert (hosts(found), sorted(cidrs(found))) == ([], ["8.8.4.4/32 tcp/853", "8.8.8.8/32 tcp/443"])


def test_what_no_list_can_cover_is_left_out() -> None:
    found = find(
        seen(None, "169.254.169.254", 80, reason="floor_metadata", verdict="deny"),
        seen(None, "45.45.45.1", 80, reason="floor_host", verdict="deny"),
        seen("8080-0000.tunnel.example"),
        seen(None, "2a0f::1", 7),
        seen("a.example", "8.8.8.8"),
        seen(None, "8.8.8.8", 443, protocol=Protocol.UDP),
    )
    assert (hosts(found), cidrs(found)) == (["a.example"], [])
    assert sorted(one.reason for one in found.left_out) == ["floor", "floor", "ipv6_address", "quic", "tunnel"]


def test_evidence_counts_by_verdict_and_devbox() -> None:
    found = find(
        seen("a.example", "8.8.8.8", count=3, first_ms=5),
        seen("a.example", verdict="deny", count=2, devbox_id="dbx_2", last_ms=9000),
    )
    (one,) = found.hostnames
    evidence = one.evidence
    assert (evidence.count, evidence.counts) == (5, {"report_only": 3, "deny": 2})
    assert (evidence.devbox_ids, evidence.first_ms, evidence.last_ms) == (("dbx_1", "dbx_2"), 5, 9000)
    assert evidence.examples == ("TCP a.example:443", "lookup a.example")


def test_what_the_policy_has_is_said_to_be_covered_and_what_it_does_not_use_is_named() -> None:
    policy = make_policy("*.example.com", "unused.example", cidrs=["8.8.8.0/24 tcp/22", "9.9.9.9/32"])
    found = find(seen("a.example.com", "1.1.1.1"), seen(None, "8.8.8.8", 22), seen("new.example"), policy=policy)
    covered = {str(one.entry): one.is_covered for one in (*found.hostnames, *found.cidrs)}
    assert covered == {"a.example.com": True, "new.example": False, "8.8.8.8/32 tcp/22": True}
    assert [str(ref) for ref in found.unused] == ["allowed_hostnames[1] unused.example", "allowed_cidrs[1] 9.9.9.9/32"]


def test_known_ways_out_are_warned_of() -> None:
    (one,) = find(seen("webhook.site", "8.8.8.8")).hostnames
    assert [advice.code for advice in one.advice] == [AdviceCode.EXFILTRATION]


@pytest.mark.parametrize(
    ("pattern", "codes"),
    [
        ("github.com", []),
        ("*.github.com", ["exfiltration"]),
        ("gist.github.com", ["exfiltration"]),
        ("a.pastebin.com", ["exfiltration"]),
        ("notpastebin.com", []),
        ("*.github.io", ["public_suffix"]),
        ("*.example.com", []),
        ("*.com", ["public_suffix", "exfiltration"]),
        ("bucket.s3.amazonaws.com", ["exfiltration"]),
    ],
)
def test_advice_on_an_entry(pattern: str, codes: list[str]) -> None:
    assert [advice.code for advice in advise_policy(make_policy(pattern), is_shared)] == codes


def test_a_policy_that_only_reports_says_so_first() -> None:
    advice = advise_policy(make_policy("webhook.site", report_only=True), is_shared)
    assert [(one.code, one.field) for one in advice] == [
        ("report_only", "enforcement"),
        ("exfiltration", "allowed_hostnames[0]"),
    ]


_PARENTS = ("example.com", "a.example.com", "example.org", "github.io", "co.uk", "s3.amazonaws.com", "amazonaws.com")
_names = st.builds(lambda label, parent: f"{label}.{parent}", st.sampled_from("abcdefgh"), st.sampled_from(_PARENTS))
_addresses = st.builds(
    lambda net, host: f"{net}.{host}", st.sampled_from(("8.8.8", "9.9.9", "10.1.2")), st.integers(1, 9)
)
_rows = st.one_of(
    st.builds(seen, _names),
    st.builds(seen, _names, _addresses),
    st.builds(
        lambda address, port, protocol: seen(None, address, port, protocol=protocol, reason="no_rule"),
        _addresses,
        st.integers(1, 6),
        st.sampled_from([Protocol.TCP, Protocol.UDP]),
    ),
    st.builds(lambda address: seen(None, address, None, protocol=Protocol.ICMP, reason="no_rule"), _addresses),
)


def _policy_of(found: AllowList, *, without: int | None = None) -> NetworkPolicy:
    entries = [one.entry for number, one in enumerate((*found.hostnames, *found.cidrs)) if number != without]
    egress = EgressRules(
        allowed_hostnames=tuple(entry for entry in entries if isinstance(entry, HostPattern)),
        allowed_cidrs=tuple(entry for entry in entries if isinstance(entry, CidrRule)),
    )
    return NetworkPolicy("npol_1", "ci", 16, 1, egress)


def _is_allowed(policy: NetworkPolicy, one: Seen) -> bool:
    prepared = prepare_policy(policy, CONTEXT)
    if one.name is not None and not isinstance(decide_lookup(prepared, one.name, CONTEXT), Allow):
        return False
    if one.address is None:
        return True
    handshake = Unseen() if one.name is None else TlsHello(one.name)
    flow = Flow(one.protocol, one.address, one.port, handshake)
    return isinstance(decide_flow(prepared, flow, () if one.name is None else (one.name,), CONTEXT), Allow)


@settings(max_examples=150)
@given(st.lists(_rows, min_size=1, max_size=40))
def test_the_list_covers_everything_that_was_seen_and_no_entry_another(rows: list[Seen]) -> None:
    found = find(*rows)
    assert found.left_out == ()
    whole = _policy_of(found)
    assert [one for one in rows if not _is_allowed(whole, one)] == []
    wildcards = [
        one.entry.name for one in found.hostnames if isinstance(one.entry, HostPattern) and one.entry.is_wildcard
    ]
    assert not any(is_shared(name) for name in wildcards)
    for number in range(len(found.hostnames) + len(found.cidrs)):
        # Each entry is needed: without it, something that was seen is denied.
        less = _policy_of(found, without=number)
        assert any(not _is_allowed(less, one) for one in rows), (found, number)
