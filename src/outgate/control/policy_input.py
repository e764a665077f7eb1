"""What a caller says about a policy, and the values it means.

A field is None when it was absent or null: both leave things as they are (design decision 2).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from outgate.control.texts import parse_name, parse_text
from outgate.core.compile import compile_policy
from outgate.errors import InvalidValueError
from outgate.model.addresses import PortRange, Protocol, parse_cidr, parse_port_range
from outgate.model.flow import HostContext
from outgate.model.names import HostPattern, parse_host_pattern
from outgate.model.plan import GRANT_FIRST
from outgate.model.policy import (
    CIDRS_MAX,
    EGRESS_FLAGS,
    HOSTNAMES_MAX,
    PORTS_PER_CIDR_MAX,
    CidrRule,
    EgressRules,
    EnforcementMode,
    NetworkPolicy,
)


@dataclass(frozen=True, slots=True)
class PortInput:
    """One entry of ``ports``."""

    port: int
    end_port: int | None = None
    protocol: Protocol | None = None


@dataclass(frozen=True, slots=True)
class CidrInput:
    """One entry of ``allowed_cidrs``. No ports means every port and protocol."""

    cidr: str
    ports: tuple[PortInput, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """A create or update body, of the right types and not yet judged."""

    name: str | None = None
    description: str | None = None
    allow_all: bool | None = None
    allow_devbox_to_devbox: bool | None = None
    allow_agent_gateway: bool | None = None
    allow_mcp_gateway: bool | None = None
    allow_runloop_mirrors: bool | None = None
    allowed_hostnames: tuple[str, ...] | None = None
    allowed_cidrs: tuple[CidrInput, ...] | None = None
    enforcement: EnforcementMode | None = None


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """The same, judged. ``flags`` holds the given booleans by the name of their field."""

    name: str | None
    description: str | None
    flags: dict[str, bool]
    allowed_hostnames: tuple[HostPattern, ...] | None
    allowed_cidrs: tuple[CidrRule, ...] | None
    enforcement: EnforcementMode | None = None


def parse_policy_input(given: PolicyInput) -> PolicyChange:
    """``given`` as values. Raises InvalidValueError naming the field, the index and what to write instead."""
    hostnames, cidrs = given.allowed_hostnames, given.allowed_cidrs
    flags: dict[str, bool | None] = {flag: getattr(given, flag) for flag in EGRESS_FLAGS}
    return PolicyChange(
        name=None if given.name is None else parse_name(given.name),
        description=None if given.description is None else parse_text(given.description, field="description"),
        flags={name: flag for name, flag in flags.items() if flag is not None},
        allowed_hostnames=None if hostnames is None else _parse_hostnames(hostnames),
        allowed_cidrs=None if cidrs is None else _parse_cidrs(cidrs),
        enforcement=given.enforcement,
    )


def check_complexity(rules: tuple[CidrRule, ...], context: HostContext) -> None:
    """Refuse CIDR rules that no kernel table of ours can hold, before they are stored.

    Together with everything that the policy's flags may open one day. Raises PolicyTooComplexError. Up to some
    100 ms of work for the largest lists: not for the event loop.
    """
    egress = EgressRules(
        allow_agent_gateway=True, allow_mcp_gateway=True, allow_runloop_mirrors=True, allowed_cidrs=rules
    )
    policy = NetworkPolicy(id="", name="", number=0, revision=1, egress=egress)
    try:
        compile_policy(policy, range(GRANT_FIRST, GRANT_FIRST + len(rules)), context)
    except InvalidValueError as error:
        raise error.at("allowed_cidrs") from None


def _parse_hostnames(texts: tuple[str, ...]) -> tuple[HostPattern, ...]:
    _check_length(texts, HOSTNAMES_MAX, "allowed_hostnames")
    patterns = []
    for index, text in enumerate(texts):
        try:
            patterns.append(parse_host_pattern(text))
        except InvalidValueError as error:
            raise error.at(f"allowed_hostnames[{index}]") from None
    return tuple(patterns)


def _parse_cidrs(entries: tuple[CidrInput, ...]) -> tuple[CidrRule, ...]:
    _check_length(entries, CIDRS_MAX, "allowed_cidrs")
    return tuple(_parse_cidr_rule(entry, f"allowed_cidrs[{index}]") for index, entry in enumerate(entries))


def _parse_cidr_rule(entry: CidrInput, place: str) -> CidrRule:
    try:
        network = parse_cidr(entry.cidr)
    except InvalidValueError as error:
        raise error.at(f"{place}.cidr") from None
    return CidrRule(network, tuple(_parse_ports(entry.ports, f"{place}.ports")))


def _parse_ports(entries: tuple[PortInput, ...], place: str) -> Iterable[PortRange]:
    _check_length(entries, PORTS_PER_CIDR_MAX, place)
    for index, entry in enumerate(entries):
        try:
            yield parse_port_range(entry.port, entry.end_port, entry.protocol)
        except InvalidValueError as error:
            raise error.at(f"{place}[{index}].{error.field}") from None


def _check_length(entries: tuple[object, ...], length_max: int, field: str) -> None:
    if len(entries) > length_max:
        message = f"{field} has {len(entries):,} entries; it takes at most {length_max:,}."
        raise InvalidValueError(message, field=field, code="too_many_entries")
