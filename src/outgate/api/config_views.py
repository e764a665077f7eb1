"""Answers of the gateway-config and mcp-config routes."""

import msgspec

from outgate.control.config_input import ConfigDocument
from outgate.control.configs import ConfigPage, decode_config
from outgate.store.configs import ConfigRow


class AuthMechanismView(msgspec.Struct, frozen=True):
    """How the credential is put into requests."""

    type: str
    key: str | None


class CustomHeaderView(msgspec.Struct, frozen=True):
    """One header more; ``secret`` is the id of the secret that holds its value."""

    name: str
    secret: str | None
    value: str | None


class GatewayConfigView(msgspec.Struct, frozen=True):
    """A gateway configuration."""

    id: str
    account_id: str
    name: str
    description: str | None
    endpoint: str
    auth_mechanism: AuthMechanismView
    custom_headers: tuple[CustomHeaderView, ...]
    create_time_ms: int


class GatewayConfigListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    gateway_configs: tuple[GatewayConfigView, ...]
    has_more: bool
    total_count: int | None


class McpConfigView(msgspec.Struct, frozen=True):
    """An MCP configuration."""

    id: str
    name: str
    description: str | None
    endpoint: str
    allowed_tools: tuple[str, ...]
    auth_mechanism: AuthMechanismView
    custom_headers: tuple[CustomHeaderView, ...]
    create_time_ms: int


class McpConfigListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last id gives the next while ``has_more``."""

    mcp_configs: tuple[McpConfigView, ...]
    has_more: bool
    total_count: int | None


def view_gateway_config(row: ConfigRow) -> GatewayConfigView:
    """The view of a gateway configuration."""
    document = decode_config(row)
    return GatewayConfigView(
        id=row.id,
        account_id=row.account_id,
        name=row.name,
        description=document.description,
        endpoint=document.endpoint,
        auth_mechanism=_view_auth(document),
        custom_headers=_view_headers(document),
        create_time_ms=row.create_time_ms,
    )


def view_gateway_configs(page: ConfigPage) -> GatewayConfigListView:
    """The view of a page."""
    return GatewayConfigListView(tuple(map(view_gateway_config, page.configs)), page.has_more, page.total_count)


def view_mcp_config(row: ConfigRow) -> McpConfigView:
    """The view of an MCP configuration."""
    document = decode_config(row)
    return McpConfigView(
        id=row.id,
        name=row.name,
        description=document.description,
        endpoint=document.endpoint,
        allowed_tools=document.allowed_tools or (),
        auth_mechanism=_view_auth(document),
        custom_headers=_view_headers(document),
        create_time_ms=row.create_time_ms,
    )


def view_mcp_configs(page: ConfigPage) -> McpConfigListView:
    """The view of a page."""
    return McpConfigListView(tuple(map(view_mcp_config, page.configs)), page.has_more, page.total_count)


def _view_auth(document: ConfigDocument) -> AuthMechanismView:
    return AuthMechanismView(document.auth.type.value, document.auth.key)


def _view_headers(document: ConfigDocument) -> tuple[CustomHeaderView, ...]:
    return tuple(CustomHeaderView(header.name, header.secret, header.value) for header in document.headers)
