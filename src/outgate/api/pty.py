"""``/v1/devboxes/{id}/create_pty_tunnel``. What it opens is in :mod:`outgate.api.pty_server`."""

from typing import Final

import msgspec
from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.responses import respond
from outgate.control.pty import create_pty_tunnel

router: Final = APIRouter(prefix="/v1/devboxes", tags=["terminals"])


class PtyTunnelView(msgspec.Struct, frozen=True, kw_only=True):
    """A PTY tunnel, shown once: its host name is ``{port}-{tunnel_key}.`` and the tunnel domain, with any port."""

    auth_token: str
    tunnel_key: str


@router.post(
    "/{id}/create_pty_tunnel",
    operation_id="createDevboxPtyTunnel",
    summary="Open a way to a devbox's terminals",
    openapi_extra=describe(PtyTunnelView, errors=[404, 413]),
)
async def create(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """A new one each time; it works while the devbox runs."""
    made = await create_pty_tunnel(context.services, await context.read_nothing(), id)
    return respond(PtyTunnelView(auth_token=made.token, tunnel_key=made.key))
