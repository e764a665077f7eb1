"""The tunnel front's interface, ``/front/v1``: on a unix socket of its own, which only the front can open.

It hands out what serving tunnels needs and nothing else: whoever takes the front over learns no API key, no
environment of a devbox and no policy.
"""

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, FastAPI, Query, Request, Response

from outgate.api.bodies import read_body
from outgate.api.context import services_of, while_connected
from outgate.api.errors import install_error_handlers
from outgate.api.responses import respond
from outgate.clock import wall_ms
from outgate.control.tunnels import FEED_WAIT_S_MAX, await_tunnels, note_tunnel_activity, wake_tunnel
from outgate.errors import InvalidValueError
from outgate.model.tunnels import ActivityNote, WakeAnswer

_NOTE: Final = msgspec.json.Decoder(ActivityNote)
_NOTE_BYTES_MAX: Final = 512 * 1024
"""Ten thousand keys of 24 letters, and what JSON puts around them."""

router: Final = APIRouter(prefix="/front/v1")


def _host_of(request: Request) -> str:
    host_id: str = request.app.state.host_id
    return host_id


@router.get("/tunnels")
async def tunnels(
    request: Request,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    wait_s: Annotated[float, Query(ge=0, le=FEED_WAIT_S_MAX)] = 0.0,
) -> Response:
    """What changed after ``after``; waits up to ``wait_s`` for a change."""
    work = await_tunnels(services_of(request), _host_of(request), after=after, wait_s=wait_s)
    return respond(await while_connected(request, work))


@router.post("/tunnels/{key}/wake")
async def wake(request: Request, key: str) -> Response:
    """A request came for a devbox that does not run."""
    state = await wake_tunnel(services_of(request), _host_of(request), key, wall_ms())
    return respond(WakeAnswer(state))


@router.post("/activity")
async def activity(request: Request) -> Response:
    """Requests came through some tunnels."""
    try:
        note = _NOTE.decode(await read_body(request, _NOTE_BYTES_MAX))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"This is no note of activity: {error}.") from None
    await note_tunnel_activity(services_of(request), _host_of(request), note, wall_ms())
    return Response(b"{}", media_type="application/json")


def create_front_app() -> FastAPI:
    """The application behind the front's socket; ``state`` needs ``services`` and ``host_id``."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.include_router(router)
    install_error_handlers(app)
    return app
