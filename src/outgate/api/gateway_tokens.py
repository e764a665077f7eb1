"""``/v1/devboxes/{id}/create_gateway_token`` and ``…/create_mcp_token``."""

from typing import Final

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel

from outgate.api.bodies import BODY_CONFIG
from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.control.gateway_tokens import refuse_gateway_token, refuse_mcp_token

router: Final = APIRouter(prefix="/v1/devboxes", tags=["devboxes"])


class DevboxCreateGatewayTokenParams(BaseModel):
    """Both by id or name."""

    model_config = BODY_CONFIG

    gateway: str
    secret: str


class DevboxCreateMcpTokenParams(BaseModel):
    """Both by id or name."""

    model_config = BODY_CONFIG

    mcp_config: str
    secret: str


class NoTokenView(msgspec.Struct, frozen=True):
    """Never answered: a token needs a gateway that takes it, and this server has none."""


@router.post(
    "/{id}/create_gateway_token",
    operation_id="createGatewayToken",
    summary="A token for the agent gateway: refused",
    openapi_extra=describe(NoTokenView, body=DevboxCreateGatewayTokenParams, errors=[404]),
)
async def create_gateway_token(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Always 400 for a devbox, a configuration and a secret that exist: there is no gateway."""
    given, call = await context.read(DevboxCreateGatewayTokenParams)
    raise await refuse_gateway_token(context.services, call.caller, id, given.gateway, given.secret)


@router.post(
    "/{id}/create_mcp_token",
    operation_id="createMcpToken",
    summary="A token for the MCP hub: refused",
    openapi_extra=describe(NoTokenView, body=DevboxCreateMcpTokenParams, errors=[404]),
)
async def create_mcp_token(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Always 400 for a devbox, a configuration and a secret that exist: there is no hub."""
    given, call = await context.read(DevboxCreateMcpTokenParams)
    raise await refuse_mcp_token(context.services, call.caller, id, given.mcp_config, given.secret)
