"""Bodies of the network-policy routes, and what they mean to control."""

import difflib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from outgate.api.bodies import BODY_CONFIG, RULE_CONFIG, Whole
from outgate.api.patterns import CIDR_PATTERN, HOSTNAME_PATTERN
from outgate.control.policy_input import CidrInput, PolicyInput, PortInput
from outgate.control.texts import DESCRIPTION_LENGTH_MAX, NAME_LENGTH_MAX, NAME_PATTERN, TEXT_PATTERN
from outgate.errors import InvalidValueError
from outgate.model.addresses import PORT_MAX, PORT_MIN, Protocol
from outgate.model.policy import (
    CIDRS_MAX,
    EGRESS_FLAGS,
    EGRESS_LISTS,
    HOSTNAMES_MAX,
    PORTS_PER_CIDR_MAX,
    EnforcementMode,
)


class ProtocolName(StrEnum):
    """Protocols that have ports."""

    TCP = "TCP"
    UDP = "UDP"


# The constraints below are for the OpenAPI document only: the parsers of the model judge, with better words.
def _said(**keywords: Any) -> Any:
    return Field(json_schema_extra=keywords)


Name = Annotated[str, _said(minLength=1, maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
Description = Annotated[str, _said(maxLength=DESCRIPTION_LENGTH_MAX, pattern=TEXT_PATTERN)]
Hostname = Annotated[str, _said(pattern=HOSTNAME_PATTERN, examples=["github.com", "*.github.com"])]
Cidr = Annotated[str, _said(pattern=CIDR_PATTERN, examples=["192.0.2.0/24"])]
Port = Annotated[Whole, _said(minimum=PORT_MIN, maximum=PORT_MAX)]


class PortBody(BaseModel):
    """One port, or a range when ``end_port`` is given; of both protocols when ``protocol`` is not."""

    model_config = RULE_CONFIG

    port: Port
    end_port: Port | None = None
    protocol: ProtocolName | None = None

    def to_input(self) -> PortInput:
        """The value control judges."""
        protocol = None if self.protocol is None else Protocol[self.protocol]
        return PortInput(self.port, self.end_port, protocol)


class CidrBody(BaseModel):
    """One IPv4 network, without host bits; every port and protocol when ``ports`` is left out or empty."""

    model_config = RULE_CONFIG

    cidr: Cidr
    ports: Annotated[list[PortBody], _said(maxItems=PORTS_PER_CIDR_MAX)] | None = None

    def to_input(self) -> CidrInput:
        """The value control judges."""
        return CidrInput(self.cidr, tuple(port.to_input() for port in self.ports or ()))


_ALLOW_FIELDS: Final = (*EGRESS_FLAGS, *EGRESS_LISTS)


class _EgressBody(BaseModel):
    """Fields of both bodies. Absent and null mean the same: unchanged, or the default at creation."""

    model_config = ConfigDict(
        **BODY_CONFIG | {"extra": "allow"},
        # An unknown field that begins with "allow" may be a restriction of a newer API: it is refused.
        json_schema_extra={
            "propertyNames": {"anyOf": [{"enum": list(_ALLOW_FIELDS)}, {"not": {"pattern": "^[aA][lL][lL][oO][wW]"}}]}
        },
    )

    description: Description | None = None
    allow_all: bool | None = None
    allow_devbox_to_devbox: bool | None = None
    allow_agent_gateway: bool | None = None
    allow_mcp_gateway: bool | None = None
    allow_runloop_mirrors: bool | None = None
    allowed_hostnames: Annotated[list[Hostname], _said(maxItems=HOSTNAMES_MAX)] | None = None
    allowed_cidrs: Annotated[list[CidrBody], _said(maxItems=CIDRS_MAX)] | None = None
    enforcement: EnforcementMode | None = None

    def _to_input(self, name: str | None) -> PolicyInput:
        _refuse_unknown_allow(self.__pydantic_extra__ or {})
        hostnames, cidrs = self.allowed_hostnames, self.allowed_cidrs
        return PolicyInput(
            name=name,
            description=self.description,
            allow_all=self.allow_all,
            allow_devbox_to_devbox=self.allow_devbox_to_devbox,
            allow_agent_gateway=self.allow_agent_gateway,
            allow_mcp_gateway=self.allow_mcp_gateway,
            allow_runloop_mirrors=self.allow_runloop_mirrors,
            allowed_hostnames=None if hostnames is None else tuple(hostnames),
            allowed_cidrs=None if cidrs is None else tuple(entry.to_input() for entry in cidrs),
            enforcement=self.enforcement,
        )


class NetworkPolicyCreateParams(_EgressBody):
    """A new network policy. With no ``allow*`` field given it denies everything."""

    name: Name

    def to_input(self) -> PolicyInput:
        """The value control judges."""
        return self._to_input(self.name)


class NetworkPolicyUpdateParams(_EgressBody):
    """A change: absent and null keep, a value replaces, ``[]`` clears, ``{}`` changes nothing."""

    name: Name | None = None

    def to_input(self) -> PolicyInput:
        """The value control judges."""
        return self._to_input(self.name)


def _refuse_unknown_allow(extra: Mapping[str, object]) -> None:
    for key in extra:
        if key.lower().startswith("allow"):
            near = difflib.get_close_matches(key.lower(), _ALLOW_FIELDS, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(_ALLOW_FIELDS)}."
            shown = key[:80]
            raise InvalidValueError(f"{shown} is not a field of a network policy; {advice}", field=shown)
