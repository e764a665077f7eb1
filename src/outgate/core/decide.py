"""The decision: may this pass, by which rule, and if not, why and what to change.

The only place that decides. The API's explain, the DNS gate, the relay and the tests ask here; the kernel's
part comes from :mod:`outgate.core.compile`, which must agree on every flow (a property test holds them together).

A flow is judged in this order, and the first that speaks decides:

1. the always-denied part of the floor: nothing opens it, ``allow_all`` neither;
2. ``allow_all``;
3. CIDR rules, the first listed first; a private, shared or reserved address needs a rule that lies wholly
   inside its range;
4. host name rules, for TCP to an address that this devbox learnt by a covered name. Whether the *flow* passes
   is up to the name in its handshake: the relay connects it to that host's own address, so the host named
   need not be the one that taught the address;
5. nothing: denied. Under a policy that only reports, it passes as :class:`ReportOnly`, unless the address is on the
   floor (its private, shared and reserved ranges included), or it goes to a tunnel: those are judged as ever.
"""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address

from msgspec import structs

from outgate.core import sentences
from outgate.core.prepared import HostRule, PreparedPolicy, prepare_policy
from outgate.core.ranges import ALWAYS_DENIED, classify, embedded_addresses, normalise_address
from outgate.model.addresses import IPAddress, Protocol
from outgate.model.flow import BadHandshake, Flow, Handshake, HostContext, HttpRequest, Opaque, TlsHello
from outgate.model.names import DomainName
from outgate.model.tunnels import is_key_of_account, parse_tunnel_name
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, ReportOnly, RuleRef, Verdict

__all__ = [
    "DNS_OVER_TLS_PORT",
    "WEB_PORTS",
    "HostRule",
    "PreparedPolicy",
    "decide_answer",
    "decide_flow",
    "decide_lookup",
    "decide_teach",
    "decide_tunnel",
    "decide_tunnel_flow",
    "floor_class",
    "is_reported",
    "prepare_policy",
    "report",
]

DNS_OVER_TLS_PORT = 853
"""Of DNS over QUIC as well (RFC 7858 §3.1, RFC 9250 §4.1.1)."""
WEB_PORTS = (80, 443)
_REPORT_RULE = RuleRef("enforcement", None, "report_only")


def floor_class(address: IPAddress, context: HostContext) -> DenyReason | None:
    """The floor class of ``address`` on this host: the fixed table, the host's own and the devboxes' addresses."""
    fixed = classify(address)
    if fixed in ALWAYS_DENIED:
        return fixed
    for candidate in (address, *embedded_addresses(address)):
        if candidate in context.host_addresses:
            return DenyReason.FLOOR_HOST
        if any(candidate in network for network in context.devbox_networks):
            return DenyReason.FLOOR_DEVBOX
    return fixed


def report(policy: PreparedPolicy, deny: Deny) -> Deny | ReportOnly:
    """``deny`` as it is carried out where the floor has no say: not at all, while the policy only reports."""
    return ReportOnly(deny, _REPORT_RULE) if policy.is_report_only else deny


def is_reported(policy: PreparedPolicy, address: IPAddress, context: HostContext) -> bool:
    """Whether everything passes to ``address`` because the policy only reports."""
    return policy.is_report_only and floor_class(normalise_address(address), context) is None


def decide_lookup(policy: PreparedPolicy, name: DomainName, context: HostContext) -> Verdict:  # noqa: ARG001 - the four decisions share one shape
    """May the devbox look up ``name``?"""
    if policy.is_allow_all:
        return policy.allow_all
    rule = policy.find_host_rule(name)
    return rule.allow if rule is not None else report(policy, _deny_name(policy, name))


def decide_tunnel(policy: PreparedPolicy, account_id: str, name: DomainName, context: HostContext) -> Verdict:
    """May a devbox of this account under ``policy`` use the tunnel of this ``name``, below the tunnel domain?

    Its own account's tunnels by ``allow_devbox_to_devbox`` (which ``allow_all`` includes); any tunnel, others' too,
    by a host name rule that covers its name. Names below the tunnel domain are never looked up elsewhere.
    """
    tunnel = None if context.tunnel_domain is None else parse_tunnel_name(name, context.tunnel_domain)
    if tunnel is None:
        return Deny(DenyReason.NO_TUNNEL, sentences.no_tunnel(name))
    is_own = is_key_of_account(tunnel.key, account_id)
    if is_own and policy.is_devbox_to_devbox:
        return policy.devbox_to_devbox
    rule = policy.find_host_rule(name)
    if rule is not None:
        return rule.allow
    if is_own:
        return Deny(DenyReason.TUNNEL_NOT_ALLOWED, sentences.tunnel_not_allowed(policy.policy, name))
    return Deny(DenyReason.TUNNEL_OF_OTHERS, sentences.tunnel_of_others(policy.policy, name))


def decide_tunnel_flow(
    policy: PreparedPolicy, account_id: str, port: int | None, handshake: Handshake, context: HostContext
) -> Verdict:
    """May a TCP flow to one of the tunnel addresses pass, that began with ``handshake``?

    Only :data:`WEB_PORTS` are open there, and only to TLS and HTTP that name a tunnel.
    """
    match handshake:
        case TlsHello(server_name=name) | HttpRequest(host=name):
            if name is None:
                kind = "TLS" if isinstance(handshake, TlsHello) else "HTTP"
                return Deny(DenyReason.NO_NAME, sentences.no_name(policy.policy, kind))
            if port in WEB_PORTS:
                return decide_tunnel(policy, account_id, name, context)
        case BadHandshake(detail=detail):
            return Deny(DenyReason.BAD_HANDSHAKE, sentences.bad_handshake(policy.policy, detail))
        case Opaque():
            return Deny(DenyReason.NOT_WEB, sentences.tunnels_are_web())
    return Deny(DenyReason.NO_HANDSHAKE, sentences.no_handshake(policy.policy))


def decide_teach(policy: PreparedPolicy, name: DomainName, address: IPAddress, context: HostContext) -> Verdict:
    """May this resolved address be handed to the devbox as an answer for ``name``, and be pinned?

    The DNS gate's question. More generous than :func:`decide_answer` in one point: a private address passes
    when a CIDR rule inside its range covers it on any port at all, because the flow itself is judged again.
    """
    address = normalise_address(address)
    near = _nearest_cidr(policy, address)
    return _decide_address(policy, name, address, context, None if near is None else policy.cidr_allows[near])


def decide_answer(
    policy: PreparedPolicy, name: DomainName, address: IPAddress, context: HostContext, *, port: int | None = None
) -> Verdict:
    """May the relay dial this resolved address, TCP ``port``, for ``name``?

    Pass the port wherever it is known: without one, a private address passes only by an internal zone or by a
    CIDR rule for every port.
    """
    address = normalise_address(address)
    return _decide_address(policy, name, address, context, _find_cidr(policy, address, Protocol.TCP, port))


def decide_flow(policy: PreparedPolicy, flow: Flow, taught: Collection[DomainName], context: HostContext) -> Verdict:
    """May ``flow`` pass? ``taught``: the names by which this devbox learnt the flow's address, in any order."""
    address = normalise_address(flow.address)
    floor = floor_class(address, context)
    if floor is not None and floor in ALWAYS_DENIED:
        return Deny(floor, sentences.floor(policy.policy, address, floor, None))
    if policy.is_allow_all:
        return policy.allow_all
    by_cidr = _find_cidr(policy, address, flow.protocol, flow.port)
    if by_cidr is not None:
        return by_cidr
    if address is not flow.address:
        flow = structs.replace(flow, address=address)
    verdict = _decide_by_names(policy, flow, floor, taught, context)
    return report(policy, verdict) if isinstance(verdict, Deny) and floor is None else verdict


def _decide_by_names(
    policy: PreparedPolicy,
    flow: Flow,
    floor: DenyReason | None,
    taught: Collection[DomainName],
    context: HostContext,
) -> Verdict:
    """Host name rules, for a flow that no address rule speaks of."""
    address = flow.address
    if flow.port == DNS_OVER_TLS_PORT and flow.protocol in (Protocol.TCP, Protocol.UDP):
        return Deny(DenyReason.ENCRYPTED_DNS, sentences.encrypted_dns(policy.policy, address))
    teachers = _covered(policy, taught if floor is None else _in_zones(taught, context))
    if not teachers:
        return _deny_untaught(policy, flow, floor, taught)
    if flow.protocol != Protocol.TCP:
        near = _nearest_ref(policy, address)
        text = sentences.protocol_needs_cidr(policy.policy, flow.protocol, address, flow.port, near)
        return Deny(DenyReason.PROTOCOL, text, near)
    return _decide_handshake(policy, flow, teachers, context)


def _decide_handshake(
    policy: PreparedPolicy,
    flow: Flow,
    teachers: dict[DomainName, HostRule],
    context: HostContext,
) -> Verdict:
    match flow.handshake:
        case TlsHello(server_name=name):
            return _decide_named(policy, "TLS", name)
        case HttpRequest(host=name):
            return _decide_named(policy, "HTTP", name)
        case Opaque():
            return _decide_opaque(policy, flow, teachers, context)
        case BadHandshake(detail=detail):
            return Deny(DenyReason.BAD_HANDSHAKE, sentences.bad_handshake(policy.policy, detail))
    # Unseen, and whatever else says nothing about the host.
    return Deny(DenyReason.NO_HANDSHAKE, sentences.no_handshake(policy.policy))


def _decide_named(policy: PreparedPolicy, kind: str, name: DomainName | None) -> Verdict:
    if name is None:
        return Deny(DenyReason.NO_NAME, sentences.no_name(policy.policy, kind))
    rule = policy.find_host_rule(name)
    if rule is not None:
        return rule.allow
    near = policy.find_apex_wildcard(name)
    text = sentences.handshake_name_not_covered(policy.policy, kind, name, near)
    return Deny(DenyReason.NAME_NOT_ALLOWED, text, near)


def _decide_opaque(
    policy: PreparedPolicy,
    flow: Flow,
    teachers: dict[DomainName, HostRule],
    context: HostContext,
) -> Verdict:
    if flow.port in WEB_PORTS or not context.address_bound:
        return Deny(DenyReason.NOT_WEB, sentences.not_web(policy.policy, flow.address, flow.port))
    # Several names may have taught it; naming the first in order makes equal flows give equal verdicts.
    name = min(teachers)
    ref = teachers[name].allow.rule
    return Allow(AllowReason.ADDRESS_BOUND, ref, sentences.allowed_by_address(policy.policy, name, ref))


def _decide_address(
    policy: PreparedPolicy, name: DomainName, address: IPAddress, context: HostContext, by_cidr: Allow | None
) -> Verdict:
    """``by_cidr``: the CIDR rule by which a private address would pass."""
    floor = floor_class(address, context)
    if floor is not None and floor in ALWAYS_DENIED:
        return Deny(floor, sentences.floor(policy.policy, address, floor, None, name))
    if policy.is_allow_all:
        return policy.allow_all
    rule = policy.find_host_rule(name)
    if floor is None:
        return rule.allow if rule is not None else report(policy, _deny_name(policy, name))
    if rule is None and (by_cidr is not None or not policy.is_report_only):
        return report(policy, _deny_name(policy, name))
    opened = rule.allow if rule is not None and _in_zones((name,), context) else by_cidr
    if opened is not None:
        return opened
    near = _nearest_ref(policy, address)
    return Deny(floor, sentences.floor(policy.policy, address, floor, near, name), near)


def _deny_name(policy: PreparedPolicy, name: DomainName) -> Deny:
    near = policy.find_apex_wildcard(name)
    return Deny(DenyReason.NAME_NOT_ALLOWED, sentences.name_not_covered(policy.policy, name, near), near)


def _deny_untaught(
    policy: PreparedPolicy, flow: Flow, floor: DenyReason | None, taught: Collection[DomainName]
) -> Deny:
    """Why a flow to an address that no covered name taught is denied."""
    address = flow.address
    near = _nearest_ref(policy, address)
    if floor is not None:
        return Deny(floor, sentences.floor(policy.policy, address, floor, near), near)
    if flow.protocol != Protocol.TCP or not policy.host_rules:
        text = sentences.no_rule(policy.policy, flow.protocol, address, flow.port, near)
        return Deny(DenyReason.NO_RULE, text, near)
    if taught:
        text = sentences.no_longer_covered(policy.policy, address, min(taught))
        return Deny(DenyReason.NOT_RESOLVED, text, near)
    return Deny(DenyReason.NOT_RESOLVED, sentences.not_resolved(policy.policy, address, near), near)


def _covered(policy: PreparedPolicy, names: Iterable[DomainName]) -> dict[DomainName, HostRule]:
    found = ((name, policy.find_host_rule(name)) for name in names)
    return {name: rule for name, rule in found if rule is not None}


def _in_zones(names: Iterable[DomainName], context: HostContext) -> list[DomainName]:
    """Those of ``names`` that are an internal zone or lie below one."""
    return [name for name in names if any(name == zone or name.endswith(f".{zone}") for zone in context.internal_zones)]


def _find_cidr(policy: PreparedPolicy, address: IPAddress, protocol: int, port: int | None) -> Allow | None:
    """The verdict of the first listed CIDR rule that covers the target. Networks of rules are IPv4."""
    if not isinstance(address, IPv4Address):
        return None
    is_conditional = classify(address) is not None
    found = policy.cidr_index.find(int(address), protocol, port, is_conditional=is_conditional)
    return None if found is None else policy.cidr_allows[found]


def _nearest_cidr(policy: PreparedPolicy, address: IPAddress) -> int | None:
    """The first listed CIDR rule that covers the address on some port."""
    if not isinstance(address, IPv4Address):
        return None
    return policy.cidr_index.find_nearest(int(address), is_conditional=classify(address) is not None)


def _nearest_ref(policy: PreparedPolicy, address: IPAddress) -> RuleRef | None:
    near = _nearest_cidr(policy, address)
    return None if near is None else policy.cidr_allows[near].rule
