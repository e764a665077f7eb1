"""Generated policies and flows: what ``core.decide`` says, and what the real stack does, are the same.

Judged by the far side alone. Allowed: the flow's bytes arrived at the address the verdict implies. Denied: no byte
of it arrived anywhere. (A name-bound flow on a port other than 80 and 443 is dialled before its first byte is
judged, for servers that speak first; such a connection carries nothing.)
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network
from random import Random
from typing import Any

import pytest

from outgate.cli.demo.namespaces import HOST_ADDRESS4, HOST_ADDRESS6
from outgate.core.decide import PreparedPolicy, decide_flow, decide_lookup, decide_teach, is_reported
from outgate.model.addresses import PortRange, Protocol
from outgate.model.endpoints import parse_endpoints
from outgate.model.flow import Flow, Handshake, HostContext, HttpRequest, Opaque, TlsHello, Unseen
from outgate.model.names import DomainName, parse_domain_name
from outgate.model.policy import NetworkPolicy
from outgate.model.verdict import Allow, AllowReason, Deny, ReportOnly
from support.internet import Journal
from support.policies import make_policy, prepare
from support.stage import Stage, Tried, attempt
from support.world import (
    HOSTS,
    IN_NETWORK_A,
    IN_NETWORK_B,
    IN_NO_NETWORK,
    METADATA,
    MIRRORS,
    NETWORK_A,
    NETWORK_B,
    PRIVATE,
)

SEEDS = range(20)
REPORTING_SEEDS = range(20, 26)
"""Of policies that only report."""
FLOWS_EACH = 50
WAIT_S = 2.0
UDP_WAIT_S = 0.3
ALLOW_ALL_SEED = 0
MIRRORS_SHARE = 0.4
"""Of the policies: with the flag on, behind which the stage's server has a host and a network."""
TAUGHT_SHARE = 0.6
"""Of the flows: to an address that DNS taught, where host name rules have a say."""
LATE_S = 0.2
NOTED_S_MAX = 30.0
"""The far side may note what arrived a while after it answered."""

NAMES = {host.name: (host.address4, host.address6) for host in HOSTS}
PATTERNS = (*NAMES, "*.wild.example.com", "*.example.org", "*.example.net")
NETWORKS = (
    NETWORK_A,
    NETWORK_B,
    "45.45.46.0/24",
    "45.45.45.10/32",
    "45.45.45.0/28",
    "10.99.0.0/24",
    "10.0.0.0/8",
    "0.0.0.0/0",
)
PORTS = ("", " any/7", " tcp/443", " any/1-100", " udp/1-65535")
ADDRESSES = (
    *(address for pair in NAMES.values() for address in pair),
    *(IN_NETWORK_A, IN_NETWORK_B, IN_NO_NETWORK, PRIVATE, METADATA, HOST_ADDRESS4),
)
MIRROR_HOSTS, MIRROR_CIDRS = parse_endpoints(MIRRORS)
CONTEXT = HostContext(
    host_addresses=frozenset(map(ip_address, (HOST_ADDRESS4, HOST_ADDRESS6, "127.0.0.1", "::1"))),
    devbox_networks=(ip_network("10.213.0.0/16"), IPv6Network("fd00::/8")),
    mirror_hosts=MIRROR_HOSTS,
    mirror_cidrs=MIRROR_CIDRS,
)

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True)
class Case:
    """One flow: as the decision sees it, as the devbox tries it, and what the far side must see."""

    flow: Flow
    spec: dict[str, object]
    taught: frozenset[DomainName]

    def targets(self, verdict: Allow | ReportOnly, policy: PreparedPolicy) -> frozenset[str]:
        """Where the far side must see it: the address itself, or those of the host the handshake names.

        Where the policy only reports, nobody is led to another address than the one it chose.
        """
        handshake = self.flow.handshake
        if is_reported(policy, self.flow.address, CONTEXT) or isinstance(verdict, ReportOnly):
            return frozenset({str(self.flow.address)})
        if verdict.reason is AllowReason.HOSTNAME:
            match handshake:
                case TlsHello(server_name=str(name)) | HttpRequest(host=str(name)):
                    return frozenset(NAMES[name])
        return frozenset({str(self.flow.address)})


def _draw_policy(random: Random, seed: int) -> NetworkPolicy:
    if seed == ALLOW_ALL_SEED:
        return make_policy(allow_all=True)
    hosts = random.sample(PATTERNS, random.randint(0, 5))
    # The last network is everything, which leaves little to find out: not every time.
    networks = random.sample(NETWORKS[: random.choice((7, 7, 7, 8))], random.randint(0, 3))
    cidrs = [network + random.choice(PORTS) for network in networks]
    has_mirrors = random.random() < MIRRORS_SHARE
    return make_policy(*hosts, cidrs=cidrs, allow_runloop_mirrors=has_mirrors, report_only=seed in REPORTING_SEEDS)


def _egress_of(policy: NetworkPolicy) -> dict[str, Any]:
    """The policy as the API takes it."""
    return {
        "allow_all": policy.egress.allow_all,
        "extra_body": {"enforcement": policy.enforcement.value},
        "allow_runloop_mirrors": policy.egress.allow_runloop_mirrors,
        "allowed_hostnames": [pattern.spelling for pattern in policy.egress.allowed_hostnames],
        "allowed_cidrs": [
            {"cidr": str(rule.network), "ports": [_ports_of(ports) for ports in rule.ports]}
            for rule in policy.egress.allowed_cidrs
        ],
    }


def _ports_of(ports: PortRange) -> dict[str, Any]:
    document: dict[str, Any] = {"port": ports.first, "end_port": ports.last}
    return document if ports.protocol is None else {**document, "protocol": ports.protocol.name}


def _draw_case(random: Random, taught: dict[str, frozenset[DomainName]], once: set[tuple[str, str]]) -> Case:
    """A flow. Those that only the packet tap sees (ICMP, port 853) are drawn at most once for each address."""
    while True:
        is_taught = bool(taught) and random.random() < TAUGHT_SHARE
        address = random.choice(sorted(taught) if is_taught else ADDRESSES)
        kind = random.choice(("tls", "tls", "tls", "http", "http", "raw", "raw", "udp", "icmp", "dot"))
        if kind in ("icmp", "dot"):
            if (kind, address) in once:
                continue
            once.add((kind, address))
        name = random.choice((*NAMES, *NAMES, None))
        parsed = None if name is None else parse_domain_name(name)
        spec: dict[str, object] = {"kind": kind, "address": address, "name": name, "wait_s": WAIT_S}
        protocol = Protocol.TCP
        handshake: Handshake
        port: int | None
        match kind:
            case "tls":
                port, handshake = random.choice((443, 443, 8443, 80, 7)), TlsHello(parsed)
            case "http":
                port, handshake = random.choice((80, 80, 8080, 443)), HttpRequest(parsed)
            case "raw":
                port, handshake = random.choice((7, 22, 80, 443)), Opaque()
            case "dot":
                spec["kind"], port, handshake = "raw", 853, Opaque()
            case "udp":
                protocol, port, handshake = Protocol.UDP, random.choice((7, 443)), Unseen()
                spec["wait_s"] = UDP_WAIT_S
            case _:
                is_v4 = isinstance(ip_address(address), IPv4Address)
                protocol, port, handshake = Protocol.ICMP if is_v4 else Protocol.ICMPV6, None, Unseen()
                spec["wait_s"] = UDP_WAIT_S
        if port is not None:
            spec["port"] = port
        return Case(Flow(protocol, ip_address(address), port, handshake), spec, taught.get(address, frozenset()))


def _arrived(case: Case, journal: Journal, began_s: float, ended_s: float) -> set[str]:
    """The far-side addresses that got something of the flow between the two times."""
    port = case.flow.port
    if case.flow.protocol in (Protocol.ICMP, Protocol.ICMPV6):
        return {
            p.address for p in journal.packets if p.protocol == case.flow.protocol and p.address == case.spec["address"]
        }
    if port == 853:
        return {p.address for p in journal.packets if p.port == port and p.address == case.spec["address"]}
    if case.flow.protocol is Protocol.UDP:
        return {d.address for d in journal.datagrams if d.size == case.spec["size"]}
    return {c.address for c in journal.connections if c.bytes_in and began_s <= c.opened_s < ended_s}


def _disagreements(
    policy: PreparedPolicy, cases: Sequence[Case], tried: Sequence[Tried], journal: Journal
) -> list[str]:
    found = []
    ends_s = [*(one.began_s for one in tried[1:]), tried[-1].ended_s + LATE_S]
    for case, one, end_s in zip(cases, tried, ends_s, strict=True):
        verdict = decide_flow(policy, case.flow, case.taught, CONTEXT)
        arrived = _arrived(case, journal, one.began_s, end_s)
        if not isinstance(verdict, Deny):
            agrees = bool(arrived) and arrived <= case.targets(verdict, policy)
        else:
            agrees = not arrived and one.outcome != "timeout"
        if not agrees:
            found.append(f"{case.spec} → {verdict}\n   but {one} and arrived at {sorted(arrived)}")
    return found


@pytest.mark.parametrize("seed", [*SEEDS, *REPORTING_SEEDS])
def test_the_stack_does_what_the_decision_says(stage: Stage, seed: int) -> None:
    random = Random(seed)
    drawn = _draw_policy(random, seed)
    egress, policy = _egress_of(drawn), prepare(drawn, CONTEXT)
    devbox = stage.devbox(stage.policy(**egress))
    taught: dict[str, frozenset[DomainName]] = {}
    names = random.sample(sorted(NAMES), random.randint(3, len(NAMES)))
    for name, looked_up in zip(
        names, attempt(devbox, *({"kind": "lookup", "name": name} for name in names)), strict=True
    ):
        parsed = parse_domain_name(name)
        expected = {
            address
            for address in NAMES[name]
            if not isinstance(decide_lookup(policy, parsed, CONTEXT), Deny)
            and not isinstance(decide_teach(policy, parsed, ip_address(address), CONTEXT), Deny)
        }
        assert set(looked_up.detail.split() if looked_up.is_answered else ()) == expected, (egress, name)
        for address in expected:
            taught[address] = taught.get(address, frozenset()) | {parsed}
    once: set[tuple[str, str]] = set()
    cases = [_draw_case(random, taught, once) for _ in range(FLOWS_EACH)]
    for number, case in enumerate(cases):
        case.spec["size"] = 100 + number  # of a datagram, by which the far side's note of it is known
    since_s = stage.internet.now_s()
    tried = attempt(devbox, *(case.spec for case in cases))
    deadline_s = time.monotonic() + NOTED_S_MAX
    while (
        disagreements := _disagreements(policy, cases, tried, stage.internet.journal(since_s=since_s))
    ) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert disagreements == [], f"{egress}, taught {taught}:\n" + "\n".join(disagreements)
