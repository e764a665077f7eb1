"""Verdicts on flows, one sentence each: verdict, reason, rule and, below, the words."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import pytest

from outgate.core.decide import decide_flow
from outgate.model.flow import BadHandshake, Flow, HostContext, Opaque, Unseen
from outgate.model.names import parse_host_pattern
from outgate.model.policy import NetworkPolicy
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, Verdict
from support.policies import http, make_flow, make_policy, names, prepare, tls

CONTEXT = HostContext(
    host_addresses=frozenset(map(ip_address, ("192.168.7.1", "198.51.0.1", "2a00:1450::9"))),
    devbox_networks=(ip_network("10.213.0.0/20"), ip_network("fd77::/64")),
    internal_zones=names("corp.example"),
    agent_gateway_hosts=(parse_host_pattern("agents.example"),),
)
WEB_ONLY = replace(CONTEXT, address_bound=False)

A, D = AllowReason, DenyReason
PYPI = make_policy("pypi.org", "*.pythonhosted.org")
ALL = make_policy(allow_all=True)
NONE = make_policy()


class Case(NamedTuple):
    policy: NetworkPolicy
    flow: Flow
    taught: str
    """Names, separated by spaces."""
    reason: AllowReason | DenyReason
    rule: str | None = None
    context: HostContext = CONTEXT


CASES: dict[str, Case] = {
    # 1. The floor that nothing opens.
    "loopback is denied under allow_all": Case(ALL, make_flow("tcp 127.0.0.1 80"), "", D.FLOOR_LOOPBACK),
    "metadata is denied under allow_all": Case(ALL, make_flow("tcp 169.254.169.254 80"), "", D.FLOOR_METADATA),
    "IPv6 metadata is denied under allow_all": Case(ALL, make_flow("tcp fd00:ec2::254 80"), "", D.FLOOR_METADATA),
    "link-local is denied under allow_all": Case(ALL, make_flow("udp fe80::1 53"), "", D.FLOOR_LINK_LOCAL),
    "multicast is denied under allow_all": Case(ALL, make_flow("udp 224.0.0.251 5353"), "", D.FLOOR_MULTICAST),
    "broadcast is denied under allow_all": Case(ALL, make_flow("udp 255.255.255.255 67"), "", D.FLOOR_BROADCAST),
    "0.0.0.0 is denied under allow_all": Case(ALL, make_flow("tcp 0.0.0.0 80"), "", D.FLOOR_UNSPECIFIED),
    "the host is denied under allow_all": Case(ALL, make_flow("tcp 192.168.7.1 22"), "", D.FLOOR_HOST),
    "the host's public address is denied under allow_all": Case(ALL, make_flow("tcp 198.51.0.1 22"), "", D.FLOOR_HOST),
    "the host's IPv6 address is denied under allow_all": Case(ALL, make_flow("tcp 2a00:1450::9 1"), "", D.FLOOR_HOST),
    "the host behind NAT64 is denied under allow_all": Case(
        ALL, make_flow("tcp 64:ff9b::198.51.0.1 22"), "", D.FLOOR_HOST
    ),
    "another devbox is denied under allow_all": Case(ALL, make_flow("tcp 10.213.0.9 22"), "", D.FLOOR_DEVBOX),
    "another devbox's IPv6 address is denied under allow_all": Case(
        ALL, make_flow("tcp fd77::9 22"), "", D.FLOOR_DEVBOX
    ),
    "another devbox by ICMP is denied under allow_all": Case(ALL, make_flow("icmp 10.213.0.9"), "", D.FLOOR_DEVBOX),
    "another devbox behind 6to4 is denied under allow_all": Case(
        ALL, make_flow("tcp 2002:ad5:9::1 22"), "", D.FLOOR_DEVBOX
    ),
    "Teredo is denied under allow_all": Case(ALL, make_flow("tcp 2001:0:808:808::f7f7:f7f7 1"), "", D.FLOOR_EMBEDDED),
    "metadata behind Teredo is denied as metadata": Case(
        ALL, make_flow("tcp 2001:0:808:808::5601:5601 1"), "", D.FLOOR_METADATA
    ),
    "a CIDR rule for metadata itself opens nothing": Case(
        make_policy(cidrs=["169.254.169.254/32"]), make_flow("tcp 169.254.169.254 80"), "", D.FLOOR_METADATA
    ),
    "a CIDR rule inside CGNAT does not open the metadata address in it": Case(
        make_policy(cidrs=["100.100.100.200/32"]), make_flow("tcp 100.100.100.200 80"), "", D.FLOOR_METADATA
    ),
    "a CIDR rule inside 240/4 does not open broadcast": Case(
        make_policy(cidrs=["240.0.0.0/4"]), make_flow("udp 255.255.255.255 67"), "", D.FLOOR_BROADCAST
    ),
    "a CIDR rule for another devbox opens nothing": Case(
        make_policy(cidrs=["10.213.0.9/32"]), make_flow("tcp 10.213.0.9 22"), "", D.FLOOR_DEVBOX
    ),
    "a CIDR rule for the host opens nothing": Case(
        make_policy(cidrs=["192.168.7.1/32"]), make_flow("tcp 192.168.7.1 22"), "", D.FLOOR_HOST
    ),
    "a name in an internal zone does not open the host": Case(
        make_policy("*.corp.example"),
        make_flow("tcp 192.168.7.1 443", tls("git.corp.example")),
        "git.corp.example",
        D.FLOOR_HOST,
    ),
    # 2. allow_all.
    "allow_all allows TCP": Case(ALL, make_flow("tcp 8.8.8.8 443"), "", A.ALLOW_ALL, "allow_all"),
    "allow_all allows private addresses": Case(ALL, make_flow("tcp 10.0.0.1 443"), "", A.ALLOW_ALL, "allow_all"),
    "allow_all allows reserved addresses": Case(ALL, make_flow("tcp 240.0.0.1 443"), "", A.ALLOW_ALL, "allow_all"),
    "allow_all allows unique local addresses": Case(ALL, make_flow("tcp fd00::1 443"), "", A.ALLOW_ALL, "allow_all"),
    "allow_all allows UDP/443": Case(ALL, make_flow("udp 8.8.8.8 443"), "", A.ALLOW_ALL, "allow_all"),
    "allow_all allows ICMP": Case(ALL, make_flow("icmp 8.8.8.8"), "", A.ALLOW_ALL, "allow_all"),
    "allow_all allows port 853": Case(ALL, make_flow("tcp 8.8.8.8 853"), "", A.ALLOW_ALL, "allow_all"),
    "allow_all is named before a CIDR rule": Case(
        make_policy(cidrs=["0.0.0.0/0"], allow_all=True), make_flow("tcp 8.8.8.8 1"), "", A.ALLOW_ALL, "allow_all"
    ),
    # 3. CIDR rules.
    "a CIDR rule allows TCP": Case(
        make_policy(cidrs=["8.0.0.0/8"]), make_flow("tcp 8.8.8.8 443"), "", A.CIDR, "allowed_cidrs[0] 8.0.0.0/8"
    ),
    "a CIDR rule without ports allows ICMP": Case(
        make_policy(cidrs=["8.0.0.0/8"]), make_flow("icmp 8.8.8.8"), "", A.CIDR, "allowed_cidrs[0] 8.0.0.0/8"
    ),
    "a CIDR rule without ports allows any protocol": Case(
        make_policy(cidrs=["8.0.0.0/8"]), make_flow("132 8.8.8.8"), "", A.CIDR, "allowed_cidrs[0] 8.0.0.0/8"
    ),
    "a CIDR rule with ports allows no ICMP": Case(
        make_policy(cidrs=["8.0.0.0/8 any/1-65535"]),
        make_flow("icmp 8.8.8.8"),
        "",
        D.NO_RULE,
        "allowed_cidrs[0] 8.0.0.0/8 tcp+udp/1-65535",
    ),
    "a CIDR rule with ports allows its port": Case(
        make_policy(cidrs=["8.0.0.0/8 udp/53"]),
        make_flow("udp 8.8.8.8 53"),
        "",
        A.CIDR,
        "allowed_cidrs[0] 8.0.0.0/8 udp/53",
    ),
    "a CIDR rule with ports allows no other port, and is named as what came nearest": Case(
        make_policy(cidrs=["8.0.0.0/8 udp/53"]),
        make_flow("udp 8.8.8.8 54"),
        "",
        D.NO_RULE,
        "allowed_cidrs[0] 8.0.0.0/8 udp/53",
    ),
    "the first listed CIDR rule is the one that allows": Case(
        make_policy(cidrs=["9.0.0.0/8", "8.8.0.0/16", "8.8.8.8/32"]),
        make_flow("tcp 8.8.8.8 1"),
        "",
        A.CIDR,
        "allowed_cidrs[1] 8.8.0.0/16",
    ),
    "a CIDR rule allows port 853": Case(
        make_policy(cidrs=["8.8.8.8/32 tcp/853"]),
        make_flow("tcp 8.8.8.8 853"),
        "",
        A.CIDR,
        "allowed_cidrs[0] 8.8.8.8/32 tcp/853",
    ),
    "a CIDR rule needs no handshake": Case(
        make_policy(cidrs=["8.8.8.8/32"]),
        make_flow("tcp 8.8.8.8 443", BadHandshake("nonsense")),
        "",
        A.CIDR,
        "allowed_cidrs[0] 8.8.8.8/32",
    ),
    "a CIDR rule comes before the name in the handshake": Case(
        make_policy("pypi.org", cidrs=["8.8.8.8/32"]),
        make_flow("tcp 8.8.8.8 443", tls("evil.example")),
        "pypi.org",
        A.CIDR,
        "allowed_cidrs[0] 8.8.8.8/32",
    ),
    "a CIDR rule inside a private range opens it": Case(
        make_policy(cidrs=["10.1.0.0/16"]), make_flow("tcp 10.1.2.3 22"), "", A.CIDR, "allowed_cidrs[0] 10.1.0.0/16"
    ),
    "a CIDR rule that is the whole private range opens it": Case(
        make_policy(cidrs=["10.0.0.0/8"]), make_flow("tcp 10.1.2.3 22"), "", A.CIDR, "allowed_cidrs[0] 10.0.0.0/8"
    ),
    "a CIDR rule wider than the private range opens nothing of it": Case(
        make_policy(cidrs=["0.0.0.0/0"]), make_flow("tcp 10.1.2.3 22"), "", D.FLOOR_PRIVATE
    ),
    "a wide CIDR rule does not hide the one inside the range": Case(
        make_policy(cidrs=["0.0.0.0/0", "10.1.2.0/24 tcp/22"]),
        make_flow("tcp 10.1.2.3 22"),
        "",
        A.CIDR,
        "allowed_cidrs[1] 10.1.2.0/24 tcp/22",
    ),
    "a CIDR rule inside the range opens its own ports only": Case(
        make_policy(cidrs=["0.0.0.0/0", "10.1.2.0/24 tcp/22"]),
        make_flow("tcp 10.1.2.3 23"),
        "",
        D.FLOOR_PRIVATE,
        "allowed_cidrs[1] 10.1.2.0/24 tcp/22",
    ),
    "a wide CIDR rule opens no CGNAT": Case(
        make_policy(cidrs=["100.0.0.0/8"]), make_flow("tcp 100.64.0.1 22"), "", D.FLOOR_SHARED
    ),
    "a wide CIDR rule opens no documentation range": Case(
        make_policy(cidrs=["203.0.0.0/8"]), make_flow("tcp 203.0.113.1 22"), "", D.FLOOR_RESERVED
    ),
    "a CIDR rule inside a documentation range opens it": Case(
        make_policy(cidrs=["203.0.113.0/24"]),
        make_flow("tcp 203.0.113.1 22"),
        "",
        A.CIDR,
        "allowed_cidrs[0] 203.0.113.0/24",
    ),
    "a mapped address is judged as the IPv4 address it is": Case(
        make_policy(cidrs=["8.8.8.8/32"]),
        make_flow("tcp ::ffff:8.8.8.8 22"),
        "",
        A.CIDR,
        "allowed_cidrs[0] 8.8.8.8/32",
    ),
    "a NAT64 address is not what an IPv4 rule covers": Case(
        make_policy(cidrs=["8.8.8.8/32"]), make_flow("tcp 64:ff9b::8.8.8.8 22"), "", D.NO_RULE
    ),
    # 4. Host names: the address first.
    "an empty policy denies TCP": Case(NONE, make_flow("tcp 8.8.8.8 443", tls("pypi.org")), "", D.NO_RULE),
    "an empty policy denies UDP": Case(NONE, make_flow("udp 8.8.8.8 53"), "", D.NO_RULE),
    "an empty policy denies IPv6": Case(NONE, make_flow("tcp 2606::1 443"), "", D.NO_RULE),
    "an address that no lookup taught is denied whatever the handshake names": Case(
        PYPI, make_flow("tcp 8.8.8.8 443", tls("pypi.org")), "", D.NOT_RESOLVED
    ),
    "an address taught by a name that is not covered any more is denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 443", tls("pypi.org")), "old.example", D.NOT_RESOLVED
    ),
    "an address taught by one covered name among others is enough": Case(
        PYPI,
        make_flow("tcp 8.8.8.8 443", tls("pypi.org")),
        "old.example pypi.org",
        A.HOSTNAME,
        "allowed_hostnames[0] pypi.org",
    ),
    "a private address taught by a covered name is denied": Case(
        PYPI, make_flow("tcp 10.0.0.1 443", tls("pypi.org")), "pypi.org", D.FLOOR_PRIVATE
    ),
    "a private address taught by a name in an internal zone is allowed": Case(
        make_policy("*.corp.example"),
        make_flow("tcp 10.0.0.1 443", tls("git.corp.example")),
        "git.corp.example",
        A.HOSTNAME,
        "allowed_hostnames[0] *.corp.example",
    ),
    "a private address taught only by a name outside the zone is denied": Case(
        make_policy("*.corp.example", "pypi.org"),
        make_flow("tcp 10.0.0.1 443", tls("git.corp.example")),
        "pypi.org",
        D.FLOOR_PRIVATE,
    ),
    "a private address taught by an internal name that no rule covers is denied": Case(
        PYPI, make_flow("tcp 10.0.0.1 443", tls("pypi.org")), "git.corp.example", D.FLOOR_PRIVATE
    ),
    # 4. Host names: the protocol.
    "UDP/443 to a taught address is denied as a protocol": Case(
        PYPI, make_flow("udp 8.8.8.8 443"), "pypi.org", D.PROTOCOL
    ),
    "ICMP to a taught address is denied as a protocol": Case(PYPI, make_flow("icmp 8.8.8.8"), "pypi.org", D.PROTOCOL),
    "ICMPv6 to a taught address is denied as a protocol": Case(
        PYPI, make_flow("icmpv6 2606::1"), "pypi.org", D.PROTOCOL
    ),
    "UDP to an untaught address has no rule": Case(PYPI, make_flow("udp 8.8.8.8 53"), "", D.NO_RULE),
    "ICMP to a private taught address is denied by the floor": Case(
        PYPI, make_flow("icmp 10.0.0.1"), "pypi.org", D.FLOOR_PRIVATE
    ),
    "DNS over TLS to a taught address is denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 853", tls("pypi.org")), "pypi.org", D.ENCRYPTED_DNS
    ),
    "DNS over QUIC is denied": Case(PYPI, make_flow("udp 8.8.8.8 853"), "pypi.org", D.ENCRYPTED_DNS),
    "port 853 of SCTP is nothing special": Case(PYPI, make_flow("132 8.8.8.8 853"), "", D.NO_RULE),
    "port 853 is denied without any rule too": Case(NONE, make_flow("tcp 8.8.8.8 853"), "", D.ENCRYPTED_DNS),
    # 4. Host names: the handshake.
    "a ClientHello that names the taught name is allowed": Case(
        PYPI, make_flow("tcp 8.8.8.8 443", tls("pypi.org")), "pypi.org", A.HOSTNAME, "allowed_hostnames[0] pypi.org"
    ),
    "a ClientHello on an odd port is allowed": Case(
        PYPI, make_flow("tcp 8.8.8.8 8443", tls("pypi.org")), "pypi.org", A.HOSTNAME, "allowed_hostnames[0] pypi.org"
    ),
    "a ClientHello over IPv6 is allowed": Case(
        PYPI, make_flow("tcp 2606::1 443", tls("pypi.org")), "pypi.org", A.HOSTNAME, "allowed_hostnames[0] pypi.org"
    ),
    "a ClientHello that names another covered host is allowed, by that host's rule": Case(
        PYPI,
        make_flow("tcp 8.8.8.8 443", tls("files.pythonhosted.org")),
        "pypi.org",
        A.HOSTNAME,
        "allowed_hostnames[1] *.pythonhosted.org",
    ),
    "a ClientHello that names a host of a flag is allowed, by the flag": Case(
        make_policy("pypi.org", allow_agent_gateway=True),
        make_flow("tcp 8.8.8.8 443", tls("agents.example")),
        "pypi.org",
        A.HOSTNAME,
        "allow_agent_gateway agents.example",
    ),
    "an address taught by a host of a flag counts as taught": Case(
        make_policy(allow_agent_gateway=True),
        make_flow("tcp 8.8.8.8 443", tls("agents.example")),
        "agents.example",
        A.HOSTNAME,
        "allow_agent_gateway agents.example",
    ),
    "a ClientHello that names a host without a rule is denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 443", tls("evil.example")), "pypi.org", D.NAME_NOT_ALLOWED
    ),
    "a ClientHello that names a wildcard's apex is denied, the wildcard named": Case(
        PYPI,
        make_flow("tcp 8.8.8.8 443", tls("pythonhosted.org")),
        "pypi.org",
        D.NAME_NOT_ALLOWED,
        "allowed_hostnames[1] *.pythonhosted.org",
    ),
    "a ClientHello without a name is denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 443", tls(None)), "pypi.org", D.NO_NAME
    ),
    "a ClientHello without a name is denied on odd ports too": Case(
        PYPI, make_flow("tcp 8.8.8.8 8443", tls(None)), "pypi.org", D.NO_NAME
    ),
    "an HTTP request to a covered host is allowed": Case(
        PYPI, make_flow("tcp 8.8.8.8 80", http("pypi.org")), "pypi.org", A.HOSTNAME, "allowed_hostnames[0] pypi.org"
    ),
    "an HTTP request to a host without a rule is denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 80", http("evil.example")), "pypi.org", D.NAME_NOT_ALLOWED
    ),
    "an HTTP request without a host is denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 80", http(None)), "pypi.org", D.NO_NAME
    ),
    "another protocol on an odd port is allowed by address": Case(
        PYPI, make_flow("tcp 8.8.8.8 22", Opaque()), "pypi.org", A.ADDRESS_BOUND, "allowed_hostnames[0] pypi.org"
    ),
    "of several names that taught the address the first in order is named": Case(
        PYPI,
        make_flow("tcp 8.8.8.8 22", Opaque()),
        "pypi.org a.pythonhosted.org z.pythonhosted.org",
        A.ADDRESS_BOUND,
        "allowed_hostnames[1] *.pythonhosted.org",
    ),
    "another protocol on port 443 is denied": Case(PYPI, make_flow("tcp 8.8.8.8 443", Opaque()), "pypi.org", D.NOT_WEB),
    "another protocol on port 80 is denied": Case(PYPI, make_flow("tcp 8.8.8.8 80", Opaque()), "pypi.org", D.NOT_WEB),
    "another protocol is denied where the setting says so": Case(
        PYPI, make_flow("tcp 8.8.8.8 22", Opaque()), "pypi.org", D.NOT_WEB, context=WEB_ONLY
    ),
    "TLS is allowed where other protocols are not": Case(
        PYPI,
        make_flow("tcp 8.8.8.8 22", tls("pypi.org")),
        "pypi.org",
        A.HOSTNAME,
        "allowed_hostnames[0] pypi.org",
        context=WEB_ONLY,
    ),
    "bytes that cannot be understood are denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 22", BadHandshake("two Host headers")), "pypi.org", D.BAD_HANDSHAKE
    ),
    "a flow that has said nothing is denied": Case(
        PYPI, make_flow("tcp 8.8.8.8 22", Unseen()), "pypi.org", D.NO_HANDSHAKE
    ),
    "another protocol to a private address of an internal name is allowed by address": Case(
        make_policy("*.corp.example", "a.example"),
        make_flow("tcp 10.0.0.1 22", Opaque()),
        "a.example git.corp.example",
        A.ADDRESS_BOUND,
        "allowed_hostnames[0] *.corp.example",
    ),
}


def outcome(verdict: Verdict) -> tuple[type[Verdict], AllowReason | DenyReason, str | None]:
    assert isinstance(verdict, Allow | Deny)
    return type(verdict), verdict.reason, None if verdict.rule is None else str(verdict.rule)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_flow(case: Case) -> None:
    verdict = decide_flow(prepare(case.policy, case.context), case.flow, names(*case.taught.split()), case.context)
    kind = Allow if isinstance(case.reason, AllowReason) else Deny
    assert outcome(verdict) == (kind, case.reason, case.rule)


def test_every_reason_that_a_policy_can_give_has_a_case() -> None:
    elsewhere = {
        # The relay's own: time and length are not the core's business.
        D.HANDSHAKE_TIMEOUT, D.HANDSHAKE_TOO_LONG, D.RESOURCE_LIMIT, D.UNKNOWN_DEVBOX,
        # The wildcard budget's, and an address that only names resolve to.
        D.WILDCARD_BUDGET, D.FLOOR_UNIQUE_LOCAL,
        # Tunnels' (test_decide_tunnels.py).
        A.DEVBOX_TO_DEVBOX, D.TUNNEL_NOT_ALLOWED, D.TUNNEL_OF_OTHERS, D.NO_TUNNEL,
        # The agent's, of a flow whose policy is not known any more.
        A.FORMER_RULE,
    }  # fmt: skip
    assert {case.reason for case in CASES.values()} == {*AllowReason, *DenyReason} - elsewhere


POLICY = "policy 'ci' (npol_1)"
SENTENCES: dict[str, str] = {
    "metadata is denied under allow_all": "169.254.169.254 is a cloud metadata address: no policy opens it.",
    "the host is denied under allow_all": "192.168.7.1 is an address of the host itself: no policy opens it.",
    "Teredo is denied under allow_all": (
        "2001:0:808:808::f7f7:f7f7 is an address that hides another one: no policy opens it."
    ),
    "another devbox is denied under allow_all": (
        "10.213.0.9 is an address of the devbox network: devboxes reach each other through tunnels only."
    ),
    "allow_all allows TCP": f"Everything is allowed by {POLICY}.",
    "a CIDR rule allows TCP": f"allowed_cidrs[0] 8.0.0.0/8 of {POLICY} covers it.",
    "a CIDR rule with ports allows no ICMP": (
        f"No rule of {POLICY} covers ICMP to 8.8.8.8: add 8.8.8.8/32 to allowed_cidrs."
        " (allowed_cidrs[0] 8.0.0.0/8 tcp+udp/1-65535 covers the address on other ports or protocols.)"
    ),
    "a CIDR rule wider than the private range opens nothing of it": (
        f"10.1.2.3 is a private address: add 10.1.2.3/32 or more of 10.0.0.0/8 to allowed_cidrs of {POLICY}."
    ),
    "a wide CIDR rule opens no CGNAT": (
        "100.64.0.1 is a shared (carrier-grade NAT) address: add 100.64.0.1/32 or more of 100.64.0.0/10 "
        f"to allowed_cidrs of {POLICY}."
    ),
    "an empty policy denies TCP": (
        f"No rule of {POLICY} covers TCP port 443 of 8.8.8.8: add the host's name to allowed_hostnames, "
        "or add 8.8.8.8/32 to allowed_cidrs."
    ),
    "an empty policy denies UDP": (
        f"No rule of {POLICY} covers UDP port 53 of 8.8.8.8: add 8.8.8.8/32 to allowed_cidrs."
    ),
    "an empty policy denies IPv6": (
        f"No rule of {POLICY} covers TCP port 443 of 2606::1: add the host's name to allowed_hostnames."
    ),
    "port 853 of SCTP is nothing special": (
        f"No rule of {POLICY} covers IP protocol 132 port 853 of 8.8.8.8: add 8.8.8.8/32 to allowed_cidrs."
    ),
    "an address that no lookup taught is denied whatever the handshake names": (
        f"No lookup of a name that {POLICY} covers taught 8.8.8.8 to this devbox: connect by name, "
        "through the devbox's own resolver, or add 8.8.8.8/32 to allowed_cidrs."
    ),
    "an address taught by a name that is not covered any more is denied": (
        f"old.example taught 8.8.8.8, and {POLICY} does not cover that name: add it to allowed_hostnames."
    ),
    "UDP/443 to a taught address is denied as a protocol": (
        f"Host name rules of {POLICY} cover TCP only, and this is UDP port 443 of 8.8.8.8: "
        "HTTP/3 clients fall back to TCP by themselves."
    ),
    "ICMP to a taught address is denied as a protocol": (
        f"Host name rules of {POLICY} cover TCP only, and this is ICMP to 8.8.8.8: add 8.8.8.8/32 to allowed_cidrs."
    ),
    "ICMPv6 to a taught address is denied as a protocol": (
        f"Host name rules of {POLICY} cover TCP only, and this is ICMPV6 to 2606::1: "
        "use TCP or IPv4, where allowed_cidrs can cover it."
    ),
    "DNS over TLS to a taught address is denied": (
        f"Port 853 of 8.8.8.8 is encrypted DNS, which would go past {POLICY}: use the devbox's resolver, "
        "or add 8.8.8.8/32 to allowed_cidrs."
    ),
    "a ClientHello that names a host without a rule is denied": (
        f"The TLS handshake names a host without a rule: evil.example is not covered by {POLICY}: "
        "add it to allowed_hostnames."
    ),
    "an HTTP request to a host without a rule is denied": (
        f"The HTTP handshake names a host without a rule: evil.example is not covered by {POLICY}: "
        "add it to allowed_hostnames."
    ),
    "a ClientHello without a name is denied": (
        f"The TLS handshake has no server name (SNI) for {POLICY} to judge: use a client that sends one."
    ),
    "an HTTP request without a host is denied": (
        f"The HTTP handshake has no Host for {POLICY} to judge: use a client that sends one."
    ),
    "another protocol on an odd port is allowed by address": (
        f"It is neither TLS nor HTTP; pypi.org taught its address, and allowed_hostnames[0] pypi.org of {POLICY} "
        "covers that name."
    ),
    "another protocol on port 443 is denied": (
        f"Port 443 of 8.8.8.8 is open to TLS and HTTP by host name rules of {POLICY}, to nothing else: "
        "add 8.8.8.8/32 to allowed_cidrs."
    ),
    "bytes that cannot be understood are denied": f"The first bytes cannot be judged by {POLICY}: two Host headers.",
    "a flow that has said nothing is denied": (
        f"Nothing was sent by which {POLICY} could tell the host: send a TLS or HTTP handshake."
    ),
}


@pytest.mark.parametrize(("title", "sentence"), SENTENCES.items(), ids=SENTENCES.keys())
def test_sentence(title: str, sentence: str) -> None:
    case = CASES[title]
    verdict = decide_flow(prepare(case.policy, case.context), case.flow, names(*case.taught.split()), case.context)
    assert isinstance(verdict, Allow | Deny)
    assert verdict.sentence == sentence


IPV6_SENTENCES: dict[str, tuple[Flow, str, str]] = {
    "untaught": (
        make_flow("tcp 2606::1 443", tls("pypi.org")),
        "",
        (
            f"No lookup of a name that {POLICY} covers taught 2606::1 to this devbox: connect by name, "
            "through the devbox's own resolver."
        ),
    ),
    "no rule for UDP": (
        make_flow("udp 2606::1 53"),
        "",
        f"No rule of {POLICY} covers UDP port 53 of 2606::1: only allow_all opens it.",
    ),
    "encrypted DNS": (
        make_flow("udp 2606::1 853"),
        "",
        f"Port 853 of 2606::1 is encrypted DNS, which would go past {POLICY}: use the devbox's resolver.",
    ),
    "not web": (
        make_flow("tcp 2606::1 80", Opaque()),
        "pypi.org",
        f"Port 80 of 2606::1 is open to TLS and HTTP by host name rules of {POLICY}, to nothing else.",
    ),
}


@pytest.mark.parametrize(("flow", "taught", "sentence"), IPV6_SENTENCES.values(), ids=IPV6_SENTENCES.keys())
def test_no_sentence_about_ipv6_advises_a_cidr_rule(flow: Flow, taught: str, sentence: str) -> None:
    verdict = decide_flow(prepare(PYPI), flow, names(*taught.split()), HostContext())
    assert isinstance(verdict, Deny)
    assert verdict.sentence == sentence


def test_a_policys_name_cannot_break_the_line_of_a_sentence() -> None:
    policy = replace(NONE, name="ci\n\x1b[31m")
    verdict = decide_flow(prepare(policy), make_flow("udp 8.8.8.8 53"), (), HostContext())
    assert isinstance(verdict, Deny)
    assert verdict.sentence.isprintable()
