"""What verdicts say to people: which policy, which rule, and what to change. No decision is taken here."""

from ipaddress import IPv4Address
from typing import Final

from outgate.core.ranges import conditional_range
from outgate.model.addresses import IPAddress, Protocol
from outgate.model.names import DomainName
from outgate.model.policy import NetworkPolicy
from outgate.model.verdict import DenyReason, RuleRef

_CLASS_TEXTS: Final[dict[DenyReason, str]] = {
    DenyReason.FLOOR_LOOPBACK: "a loopback address",
    DenyReason.FLOOR_UNSPECIFIED: "an unspecified address",
    DenyReason.FLOOR_LINK_LOCAL: "a link-local address",
    DenyReason.FLOOR_METADATA: "a cloud metadata address",
    DenyReason.FLOOR_MULTICAST: "a multicast address",
    DenyReason.FLOOR_BROADCAST: "the broadcast address",
    DenyReason.FLOOR_EMBEDDED: "an address that hides another one",
    DenyReason.FLOOR_HOST: "an address of the host itself",
    DenyReason.FLOOR_DEVBOX: "an address of the devbox network",
    DenyReason.FLOOR_PRIVATE: "a private address",
    DenyReason.FLOOR_SHARED: "a shared (carrier-grade NAT) address",
    DenyReason.FLOOR_UNIQUE_LOCAL: "a unique local address",
    DenyReason.FLOOR_RESERVED: "a reserved address",
}


def show_policy(policy: NetworkPolicy) -> str:
    """The policy as sentences call it: ``policy 'ci' (npol_1)``."""
    return f"policy {policy.name!r} ({policy.id})"


def show_target(protocol: int, address: IPAddress, port: int | None) -> str:
    """A flow's target: ``TCP port 443 of 192.0.2.1``, ``ICMP to 192.0.2.1``."""
    if port is None:
        return f"{show_protocol(protocol)} to {address}"
    return f"{show_protocol(protocol)} port {port} of {address}"


def show_protocol(protocol: int) -> str:
    """A protocol by its name, or by its number where it has none here."""
    try:
        return Protocol(protocol).name
    except ValueError:
        return f"IP protocol {protocol}"


def covered_by(policy: NetworkPolicy, rule: RuleRef) -> str:
    """Why a rule lets something pass."""
    return f"{rule} of {show_policy(policy)} covers it."


def allowed_by_all(policy: NetworkPolicy) -> str:
    """Why ``allow_all`` lets something pass."""
    return f"Everything is allowed by {show_policy(policy)}."


def allowed_before(policy: NetworkPolicy) -> str:
    """Why something passed that began before the rules are as they are."""
    return f"A rule of an earlier revision of {show_policy(policy)} allowed it."


def allowed_by_address(policy: NetworkPolicy, name: DomainName, rule: RuleRef) -> str:
    """Why something that names no host passes."""
    return (
        f"It is neither TLS nor HTTP; {name} taught its address, and {rule} of {show_policy(policy)} covers that name."
    )


def name_not_covered(policy: NetworkPolicy, name: DomainName, near: RuleRef | None) -> str:
    """Why a name is denied. ``near``: a wildcard that covers everything below the name."""
    text = f"{name} is not covered by {show_policy(policy)}: add it to allowed_hostnames."
    return text if near is None else f"{text} ({near} covers the names below it, not {name} itself.)"


def floor(
    policy: NetworkPolicy,
    address: IPAddress,
    reason: DenyReason,
    near: RuleRef | None,
    name: DomainName | None = None,
) -> str:
    """Why the deny floor stops an address.

    ``near``: a CIDR rule that covers it on other ports. ``name``: what resolved to it, where something did.
    """
    subject = f"{address} is" if name is None else f"{name} resolves to {address}, which is"
    what = f"{subject} {_CLASS_TEXTS[reason]}"
    if reason is DenyReason.FLOOR_DEVBOX:
        return f"{what}: devboxes reach each other through tunnels only."
    if reason not in _OPENED_BY_RULES:
        return f"{what}: no policy opens it."
    if not isinstance(address, IPv4Address):
        return f"{what}: only allow_all opens it, or an internal zone (OUTGATE_INTERNAL_ZONES) that holds its name."
    inside = conditional_range(address)
    text = f"{what}: add {address}/32 or more of {inside} to allowed_cidrs of {show_policy(policy)}."
    return text + _other_ports(near)


_OPENED_BY_RULES: Final = frozenset(
    {DenyReason.FLOOR_PRIVATE, DenyReason.FLOOR_SHARED, DenyReason.FLOOR_UNIQUE_LOCAL, DenyReason.FLOOR_RESERVED}
)


def no_rule(policy: NetworkPolicy, protocol: int, address: IPAddress, port: int | None, near: RuleRef | None) -> str:
    """Why a flow that nothing speaks of is denied."""
    target = show_target(protocol, address, port)
    remedies = [_add_cidr(address)] if isinstance(address, IPv4Address) else []
    if protocol == Protocol.TCP:
        remedies.insert(0, "add the host's name to allowed_hostnames")
    advice = ", or ".join(remedies) or "only allow_all opens it"
    return f"No rule of {show_policy(policy)} covers {target}: {advice}.{_other_ports(near)}"


def not_resolved(policy: NetworkPolicy, address: IPAddress, near: RuleRef | None) -> str:
    """Why an address that no allowed lookup taught is denied."""
    text = (
        f"No lookup of a name that {show_policy(policy)} covers taught {address} to this devbox: "
        "connect by name, through the devbox's own resolver"
    )
    if isinstance(address, IPv4Address):
        text += f", or {_add_cidr(address)}"
    return f"{text}.{_other_ports(near)}"


def no_longer_covered(policy: NetworkPolicy, address: IPAddress, name: DomainName) -> str:
    """Why an address is denied whose name lost its rule."""
    return f"{name} taught {address}, and {show_policy(policy)} does not cover that name: add it to allowed_hostnames."


def protocol_needs_cidr(
    policy: NetworkPolicy, protocol: int, address: IPAddress, port: int | None, near: RuleRef | None
) -> str:
    """Why a host name rule does not let UDP, ICMP and the like pass."""
    text = (
        f"Host name rules of {show_policy(policy)} cover TCP only, and this is {show_target(protocol, address, port)}"
    )
    if protocol == Protocol.UDP and port == 443:
        return f"{text}: HTTP/3 clients fall back to TCP by themselves."
    if isinstance(address, IPv4Address):
        return f"{text}: {_add_cidr(address)}.{_other_ports(near)}"
    return f"{text}: use TCP or IPv4, where allowed_cidrs can cover it."


def encrypted_dns(policy: NetworkPolicy, address: IPAddress) -> str:
    """Why port 853 is denied."""
    text = (
        f"Port 853 of {address} is encrypted DNS, which would go past {show_policy(policy)}: use the devbox's resolver"
    )
    return f"{text}, or {_add_cidr(address)}." if isinstance(address, IPv4Address) else f"{text}."


def no_name(policy: NetworkPolicy, kind: str) -> str:
    """Why a handshake without a name is denied. ``kind`` is ``TLS`` or ``HTTP``."""
    lacks = "server name (SNI)" if kind == "TLS" else "Host"
    return f"The {kind} handshake has no {lacks} for {show_policy(policy)} to judge: use a client that sends one."


def handshake_name_not_covered(policy: NetworkPolicy, kind: str, name: DomainName, near: RuleRef | None) -> str:
    """Why a handshake that names a host without a rule is denied."""
    return f"The {kind} handshake names a host without a rule: {name_not_covered(policy, name, near)}"


def bad_handshake(policy: NetworkPolicy, detail: str) -> str:
    """Why bytes that cannot be understood are denied."""
    return f"The first bytes cannot be judged by {show_policy(policy)}: {detail}."


def no_handshake(policy: NetworkPolicy) -> str:
    """Why a flow that has said nothing yet is denied."""
    return f"Nothing was sent by which {show_policy(policy)} could tell the host: send a TLS or HTTP handshake."


def not_web(policy: NetworkPolicy, address: IPAddress, port: int | None) -> str:
    """Why a protocol that is neither TLS nor HTTP is denied."""
    text = (
        f"Port {port} of {address} is open to TLS and HTTP by host name rules of {show_policy(policy)}, to nothing else"
    )
    return f"{text}: {_add_cidr(address)}." if isinstance(address, IPv4Address) else f"{text}."


def _add_cidr(address: IPAddress) -> str:
    return f"add {address}/32 to allowed_cidrs"


def _other_ports(near: RuleRef | None) -> str:
    return "" if near is None else f" ({near} covers the address on other ports or protocols.)"


def wildcard_spent(policy: NetworkPolicy, name: DomainName, rule: RuleRef) -> str:
    """Why a name is denied that a wildcard covers."""
    return (
        f"{name} would be one name too many: {rule} of {show_policy(policy)} gave this devbox as many names in the "
        "last hour as wildcards may. List the names it needs one by one in allowed_hostnames."
    )


def allowed_own_tunnel(policy: NetworkPolicy, rule: RuleRef) -> str:
    """Why a tunnel of the devbox's own account may be used."""
    return f"{rule} of {show_policy(policy)} opens the tunnels of the devbox's own account."


def tunnel_not_allowed(policy: NetworkPolicy, name: DomainName) -> str:
    """Why a tunnel of the devbox's own account may not be used."""
    return (
        f"{name} is a tunnel of this account, and {show_policy(policy)} does not open tunnels: "
        "set allow_devbox_to_devbox, or add the name to allowed_hostnames."
    )


def tunnel_of_others(policy: NetworkPolicy, name: DomainName) -> str:
    """Why a tunnel that is not the own account's may not be used."""
    return (
        f"{name} is no tunnel of this account, and {show_policy(policy)} does not name it: "
        "add it to allowed_hostnames if its owner wants to be reached from here."
    )


def no_tunnel(name: DomainName) -> str:
    """Why a name below the tunnel domain is denied that is no tunnel's."""
    return f"{name} is not the name of a tunnel; write the port, a hyphen and the tunnel's key before the domain."


def tunnels_are_web() -> str:
    """Why a protocol that is neither TLS nor HTTP does not reach a tunnel."""
    return "Tunnels speak HTTP, on port 80, and with TLS on port 443: use one of them."
