"""``/v1/devboxes/{id}/create_ssh_key``."""

from typing import Final

import msgspec
from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.responses import respond
from outgate.control.ssh_keys import create_ssh_key

router: Final = APIRouter(prefix="/v1/devboxes", tags=["terminals"])


class DevboxCreateSSHKeyResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A key, shown once. ``id`` is the devbox's; ``url`` is the SSH server's ``host`` or ``host:port``."""

    id: str
    ssh_private_key: str
    ssh_user: str
    url: str


@router.post(
    "/{id}/create_ssh_key",
    operation_id="createDevboxSshKey",
    summary="Make an SSH key for a devbox",
    openapi_extra=describe(DevboxCreateSSHKeyResponse, errors=[404, 413]),
)
async def create(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """It opens this devbox, as its user, whenever it runs. Only its public part is stored."""
    made = await create_ssh_key(context.services, await context.read_nothing(), id)
    view = DevboxCreateSSHKeyResponse(
        id=made.devbox_id, ssh_private_key=made.private_key, ssh_user=made.username, url=made.host
    )
    return respond(view)
