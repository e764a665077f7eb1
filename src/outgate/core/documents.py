"""Policy documents ↔ values, through the same parsers that judged the values when they first came in."""

from collections.abc import Sequence
from typing import Final

from outgate.errors import InvalidValueError
from outgate.model.addresses import PortRange, Protocol, parse_cidr, parse_port_range
from outgate.model.desired import CidrDocument, PolicyDocument, PortDocument
from outgate.model.names import HostPattern, parse_host_pattern
from outgate.model.plan import GRANT_ALL_BIT, GRANT_FIRST, GRANT_LAST, MARK_RESET_SENT
from outgate.model.policy import (
    CIDRS_MAX,
    HOSTNAMES_MAX,
    PORTS_PER_CIDR_MAX,
    CidrRule,
    EgressRules,
    EnforcementMode,
    NetworkPolicy,
)

_PROTOCOLS: Final[dict[str | None, Protocol | None]] = {None: None, "TCP": Protocol.TCP, "UDP": Protocol.UDP}
_NUMBER_MAX: Final = (MARK_RESET_SENT ^ GRANT_ALL_BIT) - 1
"""The highest number whose ``allow_all`` grant is not the mark of a reset flow."""


def policy_from_document(document: PolicyDocument) -> tuple[NetworkPolicy, tuple[int, ...]]:
    """The policy, and the grants of its CIDR rules in their order.

    Raises :class:`InvalidValueError` whose ``field`` is the entry to blame (``allowed_cidrs[1].ports[0].port``).
    """
    _check_count("allowed_hostnames", len(document.allowed_hostnames), HOSTNAMES_MAX)
    _check_count("allowed_cidrs", len(document.allowed_cidrs), CIDRS_MAX)
    if not 1 <= document.number <= _NUMBER_MAX:
        raise InvalidValueError(f"number is {document.number}; it is 1 to {_NUMBER_MAX}.", field="number")
    egress = EgressRules(
        allow_all=document.allow_all,
        allow_devbox_to_devbox=document.allow_devbox_to_devbox,
        allow_agent_gateway=document.allow_agent_gateway,
        allow_mcp_gateway=document.allow_mcp_gateway,
        allow_runloop_mirrors=document.allow_runloop_mirrors,
        allowed_hostnames=tuple(_parse_pattern(i, text) for i, text in enumerate(document.allowed_hostnames)),
        allowed_cidrs=tuple(_parse_cidr_rule(i, rule) for i, rule in enumerate(document.allowed_cidrs)),
    )
    mode = _parse_mode(document.enforcement)
    policy = NetworkPolicy(document.id, document.name, document.number, document.revision, egress, mode)
    return policy, tuple(rule.grant for rule in document.allowed_cidrs)


def _parse_mode(text: str) -> EnforcementMode:
    try:
        return EnforcementMode(text)
    except ValueError:
        known = " or ".join(EnforcementMode)
        raise InvalidValueError(f"enforcement is {text[:80]!r}; write {known}.", field="enforcement") from None


def _check_count(field: str, count: int, count_max: int) -> None:
    if count > count_max:
        raise InvalidValueError(f"{field} has {count:,} entries; it takes at most {count_max:,}.", field=field)


def _parse_pattern(position: int, text: str) -> HostPattern:
    try:
        return parse_host_pattern(text)
    except InvalidValueError as error:
        raise error.at(f"allowed_hostnames[{position}]") from None


def _parse_cidr_rule(position: int, rule: CidrDocument) -> CidrRule:
    place = f"allowed_cidrs[{position}]"
    _check_count(f"{place}.ports", len(rule.ports), PORTS_PER_CIDR_MAX)
    if not GRANT_FIRST <= rule.grant <= GRANT_LAST:
        raise InvalidValueError(f"grant is {rule.grant}; it is {GRANT_FIRST} to {GRANT_LAST}.", field=f"{place}.grant")
    try:
        network = parse_cidr(rule.cidr)
    except InvalidValueError as error:
        raise error.at(f"{place}.cidr") from None
    return CidrRule(network, tuple(_parse_ports(f"{place}.ports[{i}]", ports) for i, ports in enumerate(rule.ports)))


def _parse_ports(place: str, ports: PortDocument) -> PortRange:
    if ports.protocol not in _PROTOCOLS:
        raise InvalidValueError(
            f"protocol is {ports.protocol!r}; write TCP or UDP, or leave it out for both.", field=f"{place}.protocol"
        )
    try:
        return parse_port_range(ports.port, ports.end_port, _PROTOCOLS[ports.protocol])
    except InvalidValueError as error:
        raise error.at(f"{place}.{error.field}") from None


def document_from_policy(policy: NetworkPolicy, grants: Sequence[int]) -> PolicyDocument:
    """The document that :func:`policy_from_document` turns back into the same policy and grants.

    Raises ValueError when ``grants`` are not parallel to ``allowed_cidrs``.
    """
    egress = policy.egress
    return PolicyDocument(
        id=policy.id,
        name=policy.name,
        number=policy.number,
        revision=policy.revision,
        enforcement=policy.enforcement.value,
        allow_all=egress.allow_all,
        allow_devbox_to_devbox=egress.allow_devbox_to_devbox,
        allow_agent_gateway=egress.allow_agent_gateway,
        allow_mcp_gateway=egress.allow_mcp_gateway,
        allow_runloop_mirrors=egress.allow_runloop_mirrors,
        allowed_hostnames=tuple(pattern.spelling for pattern in egress.allowed_hostnames),
        allowed_cidrs=tuple(
            CidrDocument(str(rule.network), grant, tuple(_render_ports(ports) for ports in rule.ports))
            for rule, grant in zip(egress.allowed_cidrs, grants, strict=True)
        ),
    )


def _render_ports(ports: PortRange) -> PortDocument:
    return PortDocument(
        port=ports.first,
        end_port=ports.last if ports.end_port_given else None,
        protocol=None if ports.protocol is None else ports.protocol.name,
    )
