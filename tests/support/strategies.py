"""Random policies and flows whose parts meet often: few networks, few ports, few names, edges preferred."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from hypothesis import strategies as st

from outgate.model.addresses import IPAddress, PortRange, Protocol
from outgate.model.flow import BadHandshake, Flow, Handshake, HttpRequest, Opaque, TlsHello, Unseen
from outgate.model.names import DomainName, HostPattern, parse_domain_name
from outgate.model.policy import CidrRule, EgressRules, NetworkPolicy

_NETWORKS = (
    "0.0.0.0/0", "0.0.0.0/1", "8.0.0.0/7", "8.0.0.0/8", "8.8.0.0/16", "8.8.8.0/24", "8.8.8.8/31", "8.8.8.8/32",
    "8.8.8.9/32", "9.0.0.0/8", "10.0.0.0/7", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "100.64.0.0/10",
    "100.100.100.192/28", "100.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "172.0.0.0/8",
    "192.0.0.0/24", "192.0.0.0/16", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3", "240.0.0.0/4",
    "255.255.255.254/31", "255.255.255.255/32",
)  # fmt: skip


def _network(text: str) -> IPv4Network:
    return IPv4Network(text, strict=False)


networks = st.sampled_from(_NETWORKS).map(_network) | st.builds(
    lambda base, length: IPv4Network((base, length), strict=False),
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 32),
)

port_ranges = st.builds(
    lambda first, length, protocol: PortRange(first, min(first + length, 65535), protocol),
    st.sampled_from([1, 2, 80, 81, 443, 853, 65534, 65535]) | st.integers(1, 65535),
    st.sampled_from([0, 1, 2, 100, 65535]),
    st.sampled_from([None, Protocol.TCP, Protocol.UDP]),
)

cidr_rules = st.builds(CidrRule, networks, st.lists(port_ranges, max_size=3).map(tuple))


def addresses_near(rules: Sequence[CidrRule]) -> st.SearchStrategy[IPv4Address]:
    """Addresses at, in and just outside the networks of ``rules``, some of the special ones, and any."""
    edges = {int(rule.network.network_address) for rule in rules}
    edges |= {int(rule.network.broadcast_address) for rule in rules}
    edges |= {int(edge) for text in _NETWORKS for edge in (_network(text)[0], _network(text)[-1])}
    near = st.builds(
        lambda edge, offset: IPv4Address((edge + offset) % 2**32), st.sampled_from(sorted(edges)), _offsets
    )
    return near | st.integers(0, 2**32 - 1).map(IPv4Address)


_offsets = st.sampled_from([-1, 0, 1])


def ports(rules: Sequence[CidrRule]) -> st.SearchStrategy[int]:
    """Ports at and just outside the ranges of ``rules``, those with a meaning of their own, and any."""
    edges = {edge for rule in rules for span in rule.ports for edge in (span.first, span.last)} | {0, 80, 443, 853}
    near = st.builds(lambda edge, offset: min(max(edge + offset, 0), 65535), st.sampled_from(sorted(edges)), _offsets)
    return near | st.integers(0, 65535)


_LABELS = st.sampled_from(["a", "b", "example"])
domain_names = st.lists(_LABELS, min_size=1, max_size=3).map(lambda parts: parse_domain_name(".".join(parts)))
host_patterns = st.builds(
    lambda name, is_wildcard: HostPattern(name, is_wildcard, f"*.{name}" if is_wildcard else name),
    domain_names,
    st.booleans(),
)

handshakes: st.SearchStrategy[Handshake] = st.one_of(
    st.builds(TlsHello, st.none() | domain_names),
    st.builds(HttpRequest, st.none() | domain_names),
    st.just(Opaque()),
    st.just(Unseen()),
    st.builds(BadHandshake, st.just("a record longer than it may be")),
)


def make_policy_of(
    hostnames: Sequence[HostPattern], cidrs: Sequence[CidrRule], *, allow_all: bool = False
) -> NetworkPolicy:
    """A policy named ``random`` of these rules."""
    egress = EgressRules(allow_all=allow_all, allowed_hostnames=tuple(hostnames), allowed_cidrs=tuple(cidrs))
    return NetworkPolicy("npol_1", "random", 16, 1, egress)


policies = st.builds(
    make_policy_of, st.lists(host_patterns, max_size=4), st.lists(cidr_rules, max_size=5), allow_all=st.booleans()
)


@st.composite
def flows(draw: st.DrawFn, rules: Sequence[CidrRule] = ()) -> Flow:
    """A flow that the rules may or may not speak of."""
    protocol = draw(st.sampled_from([Protocol.TCP, Protocol.UDP, Protocol.ICMP, 132]))
    address: IPAddress = draw(addresses_near(rules) | st.ip_addresses(v=6))
    port = draw(ports(rules)) if protocol in (Protocol.TCP, Protocol.UDP) else None
    handshake = draw(handshakes) if protocol == Protocol.TCP else Unseen()
    return Flow(protocol, address, port, handshake)


taught_names: st.SearchStrategy[list[DomainName]] = st.lists(domain_names, max_size=3, unique=True)
