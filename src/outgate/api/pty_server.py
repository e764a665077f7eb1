"""``/pty/…``: terminals over WebSockets, on a unix socket to which the tunnel front passes such requests.

The front is believed in nothing but who the client is, and the host name that it asked for: its first label ends in
the tunnel's key, and the request itself carries the token.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel

from outgate.api.bodies import BODY_CONFIG, Whole, parse_body
from outgate.api.errors import render_error
from outgate.client.terminals import Terminal, TerminalRefusal
from outgate.control.errors import ConflictError, HostUnavailableError, NotFoundError
from outgate.control.pty import find_pty_place, find_size, parse_session_name, parse_signal, parse_size
from outgate.control.services import Services
from outgate.control.terminal_access import TerminalActivity, TerminalPlace
from outgate.control.terminal_gateway import TerminalGateway
from outgate.core.clients import client_of
from outgate.errors import InvalidValueError, OutgateError
from outgate.model.terminals import SESSION_IDLE_S_MAX, PtyAction, PtyState, RefusalCode, Refused

PROTOCOL_VERSION: Final = "1"
"""Binary frames are the terminal's bytes, both ways; text frames from the client are taken as UTF-8."""
FRAME_BYTES_MAX: Final = 1024 * 1024
_BODY_BYTES_MAX: Final = 64 * 1024
_ALIVE_EVERY_S: Final = 30.0
"""A client that is gone without a word gives its session back after one and a half of these."""
_TOKEN_HEADERS: Final = ("X-Runloop-Tunnel-Authorization", "Authorization")
_SCHEME: Final = "bearer "
_ROUTING_HEADER: Final = "X-Runloop-Host"
"""Names the tunnel for clients that must keep another Host."""

_log: Final = structlog.get_logger(__name__)


class PtyConnectView(msgspec.Struct, frozen=True, kw_only=True):
    """A PTY session. ``connect_url`` is the path to open a WebSocket on."""

    attached: bool
    created: bool
    session_name: str
    cols: int
    rows: int
    connect_url: str
    idle_ttl_seconds: int
    protocol_version: str
    status: str


class PtyControlResultView(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` is ``open`` or ``closed``."""

    session_name: str
    status: str


class PtyControlParams(BaseModel):
    """What to do to a PTY session."""

    model_config = BODY_CONFIG

    action: Literal["resize", "signal", "close"]
    cols: Whole | None = None
    rows: Whole | None = None
    signal: str | None = None


class PtyServer:
    """All PTY connections of one api process. Belongs to the event loop's thread."""

    def __init__(self, services: Services, terminals: TerminalGateway, activity: TerminalActivity) -> None:
        self._services = services
        self._terminals = terminals
        self._activity = activity

    async def serve(self, bound: socket.socket) -> None:
        """Serve ``bound`` (and listening) until cancelled."""
        runner = web.AppRunner(self.make_app(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, bound.dup()).start()
            await asyncio.get_running_loop().create_future()
        finally:
            await runner.cleanup()

    def make_app(self) -> web.Application:
        """The application by itself."""
        app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[_render_errors])
        app.router.add_get("/pty/{session_name}", self._connect, allow_head=False)
        app.router.add_post("/pty/{session_name}/control", self._control)
        return app

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        place = await self._authenticate(request)
        name = parse_session_name(request.match_info["session_name"])
        size = find_size(request.query.get("cols"), request.query.get("rows"))
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._attach(
                request, await self._terminals.attach_pty(place.url, place.devbox_id, name, size), place
            )
        state = await self._terminals.open_pty(place.url, place.devbox_id, name, size)
        return _json(_view(name, state))

    async def _control(self, request: web.Request) -> web.StreamResponse:
        place = await self._authenticate(request)
        name = parse_session_name(request.match_info["session_name"])
        given = parse_body(PtyControlParams, await request.read())
        action = PtyAction(given.action)
        await self._terminals.control_pty(
            place.url,
            place.devbox_id,
            name,
            action,
            size=parse_size(given.cols, given.rows) if action is PtyAction.RESIZE else None,
            signal=parse_signal(given.signal) if action is PtyAction.SIGNAL else 0,
        )
        status = "closed" if action is PtyAction.CLOSE else "open"
        return _json(PtyControlResultView(session_name=name, status=status))

    async def _authenticate(self, request: web.Request) -> TerminalPlace:
        host = request.headers.get(_ROUTING_HEADER, request.host)
        key = host.partition(".")[0].rpartition("-")[2].lower()
        headers = (request.headers.get(name, "") for name in _TOKEN_HEADERS)
        token = next((text[len(_SCHEME) :].strip() for text in headers if text.lower().startswith(_SCHEME)), "")
        try:
            return await find_pty_place(self._services, key, token, _client_of(request))
        except ConflictError as error:  # the founding contract has no 409 here
            raise InvalidValueError(error.message, code=error.code) from None

    async def _attach(self, request: web.Request, terminal: Terminal, place: TerminalPlace) -> web.StreamResponse:
        frames = web.WebSocketResponse(heartbeat=_ALIVE_EVERY_S, max_msg_size=FRAME_BYTES_MAX, compress=False)
        feeding: asyncio.Future[None] | None = None
        draining: asyncio.Future[None] | None = None
        try:
            await frames.prepare(request)
            feeding = asyncio.ensure_future(self._feed(frames, terminal, place))
            draining = asyncio.ensure_future(self._drain(frames, terminal, place))
            await asyncio.wait({feeding, draining}, return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                status = await terminal.ended
                word = b"the terminal went away" if status is None else b"exit status %d" % status
                code = WSCloseCode.GOING_AWAY if status is None else WSCloseCode.OK
                await frames.close(code=code, message=word)
        finally:
            for task in (feeding, draining):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            await terminal.close()
        return frames

    async def _feed(self, frames: web.WebSocketResponse, terminal: Terminal, place: TerminalPlace) -> None:
        async for frame in frames:
            if frame.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return
            self._activity.note(place.devbox_id)
            await terminal.write(frame.data if frame.type is WSMsgType.BINARY else frame.data.encode())

    async def _drain(self, frames: web.WebSocketResponse, terminal: Terminal, place: TerminalPlace) -> None:
        while data := await terminal.read():
            self._activity.note(place.devbox_id)
            await frames.send_bytes(data)


def _client_of(request: web.Request) -> str:
    """Whom the front asks for: it puts that behind whatever else the header holds."""
    return client_of(",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip())


@web.middleware
async def _render_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except TerminalRefusal as refusal:
        return _error(_translate(refusal.refused))
    except OutgateError as error:
        return _error(error)
    except web.HTTPRequestEntityTooLarge:
        return _error(InvalidValueError(f"The body is longer than {_BODY_BYTES_MAX:,} bytes."))
    except web.HTTPNotFound:
        return _error(NotFoundError("There is no such path here; PTY sessions are below /pty/.", code="no_such_route"))
    except (ConnectionResetError, web.HTTPException):
        raise
    except (OSError, TimeoutError) as error:
        _log.warning("agent unreachable", error=str(error))
        return _error(HostUnavailableError("The devbox's host does not answer; try again in a moment."))


def _translate(refused: Refused) -> OutgateError:
    match refused.code:
        case RefusalCode.NOT_FOUND:
            return NotFoundError(refused.message, code=refused.code.value)
        case RefusalCode.ATTACHED:
            return ConflictError(refused.message, code=refused.code.value)
        case RefusalCode.FAILED:
            return HostUnavailableError(refused.message, code=refused.code.value)
        case _:
            return InvalidValueError(refused.message, code=refused.code.value)


def _view(name: str, state: PtyState) -> PtyConnectView:
    return PtyConnectView(
        attached=state.is_attached,
        created=state.is_created,
        session_name=name,
        cols=state.size.cols,
        rows=state.size.rows,
        connect_url=f"/pty/{name}",
        idle_ttl_seconds=SESSION_IDLE_S_MAX,
        protocol_version=PROTOCOL_VERSION,
        status="attached" if state.is_attached else "open",
    )


def _json(view: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(view), content_type="application/json")


def _error(error: OutgateError) -> web.Response:
    rendered = render_error(error)
    headers = {name: value for name, value in rendered.headers.items() if name != "content-length"}
    return web.Response(status=rendered.status_code, body=bytes(rendered.body), headers=headers)
