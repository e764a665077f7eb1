"""Policies and flows in few words, for tests that speak of decisions."""

from collections.abc import Sequence
from ipaddress import ip_address

from outgate.core.decide import PreparedPolicy, prepare_policy
from outgate.model.addresses import PortRange, Protocol, parse_cidr, parse_port_range
from outgate.model.flow import Flow, Handshake, HostContext, HttpRequest, TlsHello, Unseen
from outgate.model.names import DomainName, parse_domain_name, parse_host_pattern
from outgate.model.policy import CidrRule, EgressRules, EnforcementMode, NetworkPolicy

_PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "any": None}


def make_rule(text: str) -> CidrRule:
    """``10.0.0.0/8``, ``10.0.0.0/8 tcp/443``, ``10.0.0.0/8 udp/53 any/1000-2000`` as a rule."""
    network, *ports = text.split()
    return CidrRule(parse_cidr(network), tuple(_make_ports(span) for span in ports))


def _make_ports(text: str) -> PortRange:
    protocol, _, span = text.partition("/")
    first, dash, last = span.partition("-")
    return parse_port_range(int(first), int(last) if dash else None, _PROTOCOLS[protocol])


def make_policy(
    *hostnames: str,
    cidrs: Sequence[str | CidrRule] = (),
    allow_all: bool = False,
    allow_agent_gateway: bool = False,
    allow_mcp_gateway: bool = False,
    allow_runloop_mirrors: bool = False,
    number: int = 16,
    policy_id: str = "npol_1",
    report_only: bool = False,
) -> NetworkPolicy:
    """A policy named ``ci`` with these rules, and nothing else."""
    return NetworkPolicy(
        id=policy_id,
        name="ci",
        number=number,
        revision=1,
        enforcement=EnforcementMode.REPORT_ONLY if report_only else EnforcementMode.ENFORCE,
        egress=EgressRules(
            allow_all=allow_all,
            allow_agent_gateway=allow_agent_gateway,
            allow_mcp_gateway=allow_mcp_gateway,
            allow_runloop_mirrors=allow_runloop_mirrors,
            allowed_hostnames=tuple(map(parse_host_pattern, hostnames)),
            allowed_cidrs=tuple(make_rule(rule) if isinstance(rule, str) else rule for rule in cidrs),
        ),
    )


def prepare(policy: NetworkPolicy, context: HostContext | None = None) -> PreparedPolicy:
    """The policy prepared for a host without peculiarities, or for ``context``."""
    return prepare_policy(policy, HostContext() if context is None else context)


def names(*texts: str) -> tuple[DomainName, ...]:
    """Names in normal form."""
    return tuple(map(parse_domain_name, texts))


def make_flow(target: str, handshake: Handshake | None = None) -> Flow:
    """``tcp 192.0.2.1 443``, ``udp 2001:db8::1 53``, ``icmp 192.0.2.1``, ``132 192.0.2.1`` as a flow."""
    protocol, address, *port = target.split()
    known = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "icmp": Protocol.ICMP, "icmpv6": Protocol.ICMPV6}
    return Flow(
        protocol=known[protocol] if protocol in known else int(protocol),
        address=ip_address(address),
        port=int(port[0]) if port else None,
        handshake=Unseen() if handshake is None else handshake,
    )


def tls(name: str | None) -> TlsHello:
    """A ClientHello that names ``name``."""
    return TlsHello(None if name is None else parse_domain_name(name))


def http(name: str | None) -> HttpRequest:
    """An HTTP/1 request whose Host is ``name``."""
    return HttpRequest(None if name is None else parse_domain_name(name))
