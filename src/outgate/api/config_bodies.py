"""Bodies of the gateway-config and mcp-config routes, and what they mean to control."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from outgate.api.bodies import BODY_CONFIG, RULE_CONFIG
from outgate.control.config_input import (
    CUSTOM_HEADERS_MAX,
    ENDPOINT_LENGTH_MAX,
    HEADER_NAME_PATTERN,
    HEADER_VALUE_LENGTH_MAX,
    TOOL_LENGTH_MAX,
    TOOLS_MAX,
    AuthInput,
    AuthType,
    ConfigInput,
    HeaderInput,
)
from outgate.control.texts import DESCRIPTION_LENGTH_MAX, NAME_LENGTH_MAX, NAME_PATTERN, TEXT_PATTERN


# The constraints below are for the OpenAPI document only: control judges, with better words.
def _said(**keywords: Any) -> Any:
    return Field(json_schema_extra=keywords)


Name = Annotated[str, _said(minLength=1, maxLength=NAME_LENGTH_MAX, pattern=NAME_PATTERN)]
Description = Annotated[str, _said(maxLength=DESCRIPTION_LENGTH_MAX, pattern=TEXT_PATTERN)]
Endpoint = Annotated[
    str,
    _said(
        maxLength=ENDPOINT_LENGTH_MAX,
        pattern="^https?://[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)*(:[0-9]{1,4})?(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*$",
        examples=["https://api.example.com"],
    ),
]
HeaderName = Annotated[str, _said(pattern=HEADER_NAME_PATTERN, examples=["x-api-key"])]
Tool = Annotated[str, _said(pattern=f"^[!-~]{{1,{TOOL_LENGTH_MAX}}}$", examples=["*", "github.search_*"])]


class AuthMechanism(BaseModel):
    """How the credential is put into requests. ``key``: the header's name, for type ``header`` only."""

    model_config = ConfigDict(
        **RULE_CONFIG,
        json_schema_extra={
            "oneOf": [
                {"properties": {"type": {"const": "header"}, "key": {"type": "string"}}, "required": ["key"]},
                {"properties": {"type": {"enum": ["bearer", "basic"]}, "key": {"type": "null"}}},
            ]
        },
    )

    type: Annotated[str, _said(enum=[kind.value for kind in AuthType])]
    key: HeaderName | None = None

    def to_input(self) -> AuthInput:
        """The value control judges."""
        return AuthInput(self.type, self.key)


class CustomHeader(BaseModel):
    """One header more, with the value of a secret (its id or name) or with a literal one."""

    model_config = ConfigDict(
        **RULE_CONFIG,
        json_schema_extra={
            "oneOf": [
                {"properties": {"secret": {"type": "string"}, "value": {"type": "null"}}, "required": ["secret"]},
                {"properties": {"value": {"type": "string"}, "secret": {"type": "null"}}, "required": ["value"]},
            ]
        },
    )

    name: HeaderName
    secret: str | None = None
    value: Annotated[str, _said(pattern=f"^[\\t -~]{{0,{HEADER_VALUE_LENGTH_MAX}}}$")] | None = None

    def to_input(self) -> HeaderInput:
        """The value control judges."""
        return HeaderInput(self.name, self.secret, self.value)


Headers = Annotated[list[CustomHeader], _said(maxItems=CUSTOM_HEADERS_MAX)]
Tools = Annotated[list[Tool], _said(maxItems=TOOLS_MAX)]


class _ConfigBody(BaseModel):
    """What all bodies hold. Absent and null mean the same: unchanged, or none at creation."""

    model_config = BODY_CONFIG

    description: Description | None = None
    custom_headers: Headers | None = None

    def _to_input(
        self,
        name: str | None,
        endpoint: str | None,
        auth: AuthMechanism | None,
        allowed_tools: list[str] | None = None,
    ) -> ConfigInput:
        headers = self.custom_headers
        return ConfigInput(
            name=name,
            description=self.description,
            endpoint=endpoint,
            auth=None if auth is None else auth.to_input(),
            headers=None if headers is None else tuple(header.to_input() for header in headers),
            allowed_tools=None if allowed_tools is None else tuple(allowed_tools),
        )


class GatewayConfigCreateParams(_ConfigBody):
    """A new gateway configuration."""

    name: Name
    endpoint: Endpoint
    auth_mechanism: AuthMechanism

    def to_input(self) -> ConfigInput:
        """The value control judges."""
        return self._to_input(self.name, self.endpoint, self.auth_mechanism)


class GatewayConfigUpdateParams(_ConfigBody):
    """A change: absent and null keep, a value replaces, ``[]`` clears the headers."""

    name: Name | None = None
    endpoint: Endpoint | None = None
    auth_mechanism: AuthMechanism | None = None

    def to_input(self) -> ConfigInput:
        """The value control judges."""
        return self._to_input(self.name, self.endpoint, self.auth_mechanism)


class McpConfigCreateParams(_ConfigBody):
    """A new MCP configuration. The credential is a bearer token unless said otherwise."""

    name: Name
    endpoint: Endpoint
    allowed_tools: Tools
    auth_mechanism: AuthMechanism | None = None

    def to_input(self) -> ConfigInput:
        """The value control judges."""
        return self._to_input(self.name, self.endpoint, self.auth_mechanism, self.allowed_tools)


class McpConfigUpdateParams(_ConfigBody):
    """A change: absent and null keep, a value replaces, ``[]`` clears headers, or allows no tool."""

    name: Name | None = None
    endpoint: Endpoint | None = None
    allowed_tools: Tools | None = None
    auth_mechanism: AuthMechanism | None = None

    def to_input(self) -> ConfigInput:
        """The value control judges."""
        return self._to_input(self.name, self.endpoint, self.auth_mechanism, self.allowed_tools)
