"""Verdicts. Deny is the default, and every verdict says why: first by an enum, then by a sentence."""

from dataclasses import dataclass
from enum import StrEnum


class EnforcementPoint(StrEnum):
    """Where a verdict was carried out."""

    DNS = "dns"
    RELAY = "relay"
    KERNEL = "kernel"


class AllowReason(StrEnum):
    """Why something may pass."""

    ALLOW_ALL = "allow_all"
    HOSTNAME = "hostname"
    CIDR = "cidr"
    DEVBOX_TO_DEVBOX = "devbox_to_devbox"
    """A tunnel of the devbox's own account."""
    ADDRESS_BOUND = "address_bound"
    """Neither TLS nor HTTP on a port other than 80 and 443: allowed by the address that DNS taught."""
    FORMER_RULE = "former_rule"
    """A rule of an earlier revision let the flow begin; which one is not known any more."""


class DenyReason(StrEnum):
    """Why something may not pass."""

    NO_RULE = "no_rule"
    """No rule covers it; the default is deny."""
    NOT_RESOLVED = "not_resolved"
    """The address was not taught to this devbox by a lookup of an allowed name."""
    NAME_NOT_ALLOWED = "name_not_allowed"
    """The handshake names a host that no rule covers."""
    NO_NAME = "no_name"
    """The handshake is TLS or HTTP and names no host."""
    NO_HANDSHAKE = "no_handshake"
    """The flow needs a name to be judged by and has not sent one."""
    BAD_HANDSHAKE = "bad_handshake"
    """The first bytes claim to be TLS or HTTP and cannot be understood."""
    HANDSHAKE_TOO_LONG = "handshake_too_long"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    NOT_WEB = "not_web"
    """Neither TLS nor HTTP where one of them is required (ports 80 and 443, or address_bound off)."""
    PROTOCOL = "protocol"
    """Host name rules cover TCP only; this is another protocol."""
    ENCRYPTED_DNS = "encrypted_dns"
    """DNS over TLS or QUIC (port 853) would take lookups past the gate."""
    FLOOR_LOOPBACK = "floor_loopback"
    FLOOR_UNSPECIFIED = "floor_unspecified"
    FLOOR_LINK_LOCAL = "floor_link_local"
    FLOOR_METADATA = "floor_metadata"
    FLOOR_MULTICAST = "floor_multicast"
    FLOOR_BROADCAST = "floor_broadcast"
    FLOOR_HOST = "floor_host"
    """One of the host's own addresses."""
    FLOOR_DEVBOX = "floor_devbox"
    """Another devbox's address: devboxes reach each other through tunnels only."""
    FLOOR_PRIVATE = "floor_private"
    FLOOR_SHARED = "floor_shared"
    """Carrier-grade NAT space, 100.64.0.0/10 (RFC 6598)."""
    FLOOR_UNIQUE_LOCAL = "floor_unique_local"
    FLOOR_RESERVED = "floor_reserved"
    FLOOR_EMBEDDED = "floor_embedded"
    """An IPv6 form whose IPv4 address no rule can read (Teredo, local-use NAT64)."""
    TUNNEL_NOT_ALLOWED = "tunnel_not_allowed"
    """A tunnel of the devbox's own account; devbox-to-devbox traffic is off."""
    TUNNEL_OF_OTHERS = "tunnel_of_others"
    """A tunnel of another account, which only an entry for its name opens."""
    NO_TUNNEL = "no_tunnel"
    """A name below the tunnel domain that cannot be a tunnel's."""
    WILDCARD_BUDGET = "wildcard_budget"
    """The wildcard already gave this devbox as many names as it may in an hour."""
    UNKNOWN_DEVBOX = "unknown_devbox"
    """The packet comes from an address that no devbox was given."""
    RESOURCE_LIMIT = "resource_limit"
    """This devbox already holds as many flows or queries as one devbox may."""


@dataclass(frozen=True, slots=True)
class RuleRef:
    """Which field of the policy decided: ``allowed_hostnames[2] *.github.com``."""

    field: str
    index: int | None = None
    text: str = ""

    def __str__(self) -> str:
        place = self.field if self.index is None else f"{self.field}[{self.index}]"
        return f"{place} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Allow:
    """It may pass, by ``rule``."""

    reason: AllowReason
    rule: RuleRef
    sentence: str


@dataclass(frozen=True, slots=True)
class Deny:
    """It may not pass. ``rule`` is the rule that came nearest, where one did."""

    reason: DenyReason
    sentence: str
    rule: RuleRef | None = None


@dataclass(frozen=True, slots=True)
class ReportOnly:
    """It passes although ``would_be`` is what the rules say: the policy is in report-only mode."""

    would_be: Deny
    rule: RuleRef

    @property
    def sentence(self) -> str:
        """That it passed, and why it would not have."""
        return f"Let through, because the policy only reports. Enforced, it would be denied: {self.would_be.sentence}"


Verdict = Allow | Deny | ReportOnly
