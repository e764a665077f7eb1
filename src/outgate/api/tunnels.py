"""``/v1/devboxes/{id}/enable_tunnel`` and ``…/remove_tunnel``."""

from typing import Final

from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.devbox_views import EmptyView
from outgate.api.openapi import describe
from outgate.api.policy_views import render_enforcement
from outgate.api.responses import respond
from outgate.api.tunnel_bodies import DevboxEnableTunnelParams
from outgate.api.tunnel_views import TunnelView, view_tunnel
from outgate.control.tunnels import disable_tunnel, enable_tunnel

ENFORCED_HEADER: Final = "x-outgate-enforced"
_ENFORCED: Final = {ENFORCED_HEADER: "1/1 when the host's tunnel front has taken the change over, else 0/1."}

router: Final = APIRouter(prefix="/v1/devboxes/{id}", tags=["tunnels"])


@router.post(
    "/enable_tunnel",
    operation_id="enableDevboxTunnel",
    summary="Open the devbox's tunnel",
    openapi_extra=describe(
        TunnelView, body=DevboxEnableTunnelParams, is_body_optional=True, errors=[404, 409], headers=_ENFORCED
    ),
)
async def enable(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Its ports are reached from the moment of the answer."""
    given, call = await context.read(DevboxEnableTunnelParams)
    enabled = await enable_tunnel(context.services, call, id, given.to_input())
    return respond(view_tunnel(enabled.tunnel), {ENFORCED_HEADER: render_enforcement(enabled.enforcement)})


@router.post(
    "/remove_tunnel",
    operation_id="removeDevboxTunnel",
    summary="Remove the devbox's tunnel",
    openapi_extra=describe(EmptyView, errors=[404, 413], headers=_ENFORCED),
)
async def remove(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Its connections are cut before the answer. A devbox without one stays as it is."""
    removed = await disable_tunnel(context.services, await context.read_nothing(), id)
    return respond(EmptyView(), {ENFORCED_HEADER: render_enforcement(removed)})
