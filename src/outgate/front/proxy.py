"""The handler of requests: judged, carried into the devbox, and the answer carried back as it comes.

Each request gets a connection of its own, made at the moment it is asked for: so each finds the devbox as it is,
and nothing of one request can reach another.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import h11
import structlog
from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from outgate.client.dialer import DialError
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.clock import monotonic_s
from outgate.core.clients import AttemptLimit, client_of
from outgate.front.activity import Activity
from outgate.front.admission import Admitted, Refused, Unknown, WantsToken, admit
from outgate.front.heads import is_websocket, request_headers, response_headers
from outgate.front.routes import RouteTable, TooManyRequestsError
from outgate.front.upgrade import pass_upgraded
from outgate.front.upstream import ResponseHead, Upstream, sending
from outgate.model.names import DomainName
from outgate.model.tunnels import DialStatus, InsideHello, WakeAnswer, WakeState

RETRY_AFTER_S: Final = 5
"""What the hosted service says to whoever waits for a devbox to wake."""
_SWITCHING: Final = 101
_PTY_PATH: Final = "/pty/"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_NOT_READY: Final = Refused(503, "tunnel_service_not_ready", "Nothing listens on this port of the devbox.", 1)
_BUSY: Final = Refused(503, "tunnel_unavailable", "The tunnel is busy; try again in a moment.", 1)
_WAKING: Final = Refused(
    503, "tunnel_unavailable", "The devbox is starting; send the request again in a moment.", RETRY_AFTER_S
)
_ASLEEP: Final = Refused(503, "tunnel_unavailable", "The devbox does not run, and requests do not wake it.", 60)
_GONE: Final = Refused(404, "tunnel_not_found", "There is no such tunnel any more.")
_BROKEN: Final = Refused(502, "tunnel_bad_answer", "The server in the devbox broke off, or did not speak HTTP.")
_WAKE_ANSWERS: Final = {WakeState.STARTING: _WAKING, WakeState.ASLEEP: _ASLEEP, WakeState.GONE: _GONE}


class Dial(Protocol):
    """Opens connections into devboxes."""

    async def __call__(self, devbox_id: str, port: int) -> Upstream:
        """Raises DialError."""
        ...


class Waker(Protocol):
    """Whom to tell that a devbox is wanted."""

    async def wake(self, key: str) -> WakeAnswer:
        """Raises PeerUnreachableError and PeerRefusedError."""
        ...


OpenPty = Callable[[], Awaitable[Upstream]]
"""Opens a connection to the api's terminals. Raises OSError."""


@dataclass(frozen=True, slots=True)
class ProxyNeeds:
    """What requests are served with."""

    domain: DomainName
    table: RouteTable
    activity: Activity
    dial: Dial
    waker: Waker
    open_pty: OpenPty
    auth_failures_max: int
    """Wrong tokens that one client may show in a minute; 0 for any number."""


@dataclass(frozen=True, slots=True)
class _Passage:
    """One request's way: which tunnel it uses, what stays behind, and whether its use is activity."""

    key: str
    without: frozenset[bytes]
    note: Callable[[], None]
    peer: str | None
    """Who is said to have asked."""


class ClientConnection(RequestHandler):
    """A client's connection. ``inside`` is the devbox behind it; None for those that come from outside."""

    def __init__(self, manager: web.Server, *, inside: InsideHello | None, **options: object) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **options)  # type: ignore[arg-type] # as Server does
        self.inside = inside


class Proxy:
    """Serves requests. Belongs to the event loop's thread."""

    def __init__(self, needs: ProxyNeeds) -> None:
        self._needs = needs
        self._attempts = AttemptLimit()
        self._log = structlog.get_logger("proxy")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request, to its end."""
        try:
            return await self._serve(request)
        except ConnectionError:
            raise  # the client is gone, which is nobody's fault
        except Exception:
            self._log.exception("defect", method=request.method)
            raise

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._needs.table.seq:
            return _refuse(_BUSY)  # nothing is known yet
        connection = request.protocol
        inside = connection.inside if isinstance(connection, ClientConnection) else None
        admitted = admit(request.raw_headers, self._needs.table.find, self._needs.domain, inside)
        if isinstance(admitted, WantsToken):
            admitted = self._check_token(admitted, inside, request)
        if isinstance(admitted, Refused):
            return _refuse(admitted)
        if not request.raw_path.startswith("/") and request.raw_path != "*":
            return _refuse(Refused(400, "bad_request", "The request target has to begin with a slash."))
        if isinstance(admitted, Unknown):
            return await self._pass_to_pty(request, admitted, inside)
        key = admitted.route.key
        passage = _Passage(key, admitted.without, lambda: self._needs.activity.note(key), _peer_of(request))
        passage.note()
        return await self._pass(request, passage, lambda: self._dial(admitted))

    def _check_token(
        self, wanted: WantsToken, inside: InsideHello | None, request: web.BaseRequest
    ) -> Admitted | Refused:
        """Whether the request shows the tunnel's token, unless its client showed too many wrong ones."""
        client = client_of(_peer_of(request) or "") if inside is None else inside.devbox_id
        attempts, failures_max, now_s = self._attempts, self._needs.auth_failures_max, monotonic_s()
        wait_s = attempts.wait_s(client, wanted.proof, failures_max, now_s)
        if wait_s:
            message = "Too many wrong tokens were sent from your address, so this one was not looked at."
            return Refused(429, "too_many_attempts", message, wait_s)
        judged = wanted.judge()
        if isinstance(judged, Admitted):
            attempts.prove(client, wanted.proof)
            return judged
        if wanted.has_token:
            attempts.fail(client, failures_max, now_s)
            if attempts.is_news(client):
                self._log.warning("too_many_wrong_tokens", client=client, per_minute_max=failures_max)
        return judged

    async def _pass_to_pty(
        self, request: web.BaseRequest, unknown: Unknown, inside: InsideHello | None
    ) -> web.StreamResponse:
        """Terminals: the api judges such requests by the key in their Host and by their token."""
        if not request.raw_path.startswith(_PTY_PATH):
            return _refuse(unknown.refuse())
        # The api bounds wrong tokens by who asks.
        peer = _peer_of(request) if inside is None else inside.devbox_id
        passage = _Passage(unknown.key, frozenset(), lambda: None, peer)
        return await self._pass(request, passage, self._open_pty)

    async def _pass(
        self, request: web.BaseRequest, passage: _Passage, open_upstream: Callable[[], Awaitable[Upstream | Refused]]
    ) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        try:
            with self._needs.table.using(passage.key, transport):
                upstream = await open_upstream()
                if isinstance(upstream, Refused):
                    return _refuse(upstream)
                try:
                    return await self._exchange(request, passage, upstream)
                finally:
                    upstream.close()
        except TooManyRequestsError:
            return _refuse(_BUSY)

    async def _open_pty(self) -> Upstream | Refused:
        try:
            return await self._needs.open_pty()
        except OSError as error:
            self._log.info("no_terminals", why=str(error))
            return _BUSY

    async def _dial(self, admitted: Admitted) -> Upstream | Refused:
        try:
            return await self._needs.dial(admitted.route.devbox_id, admitted.port)
        except DialError as error:
            return await self._explain(admitted, error)

    async def _explain(self, admitted: Admitted, error: DialError) -> Refused:
        if error.status is DialStatus.REFUSED:
            return _NOT_READY
        if error.status is not DialStatus.NOT_RUNNING:
            self._log.info("not_dialled", devbox_id=admitted.route.devbox_id, why=error.message)
            return _BUSY
        try:
            answer = await self._needs.waker.wake(admitted.route.key)
        except (PeerUnreachableError, PeerRefusedError) as failure:
            self._log.info("not_woken", devbox_id=admitted.route.devbox_id, why=failure.message)
            return _BUSY
        return _WAKE_ANSWERS[answer.state]

    async def _exchange(self, request: web.BaseRequest, passage: _Passage, upstream: Upstream) -> web.StreamResponse:
        wants_upgrade = is_websocket(request.raw_headers)
        headers = request_headers(
            request.raw_headers,
            scheme=request.scheme,
            peer=passage.peer,
            is_chunked=request.can_read_body and hdrs.CONTENT_LENGTH not in request.headers,
            is_upgrade=wants_upgrade,
            without=passage.without,
        )
        try:
            await upstream.send_head(request.method, request.raw_path, headers)
            if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
                await request.writer.write(_CONTINUE)
            async with sending(upstream, request.content.iter_any()):
                head = await upstream.read_head()
                if head.status_code != _SWITCHING:
                    return await _answer(request, passage, upstream, head)
        except (h11.ProtocolError, OSError):
            return _refuse(_BROKEN)
        if not (wants_upgrade and is_websocket(head.headers)):
            return _refuse(_BROKEN)
        return await _upgrade(request, passage, upstream, head)


def _peer_of(request: web.BaseRequest) -> str | None:
    """The client's address; None for a devbox, which comes by a unix socket."""
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else None


async def _answer(
    request: web.BaseRequest, passage: _Passage, upstream: Upstream, head: ResponseHead
) -> web.StreamResponse:
    response = _relay_head(head)
    await response.prepare(request)
    try:
        async for chunk in upstream.read_body():
            await response.write(chunk)
            passage.note()
    except (h11.RemoteProtocolError, OSError):
        # Half a response must not look like a whole one: the client sees its connection break.
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


async def _upgrade(
    request: web.BaseRequest, passage: _Passage, upstream: Upstream, head: ResponseHead
) -> web.StreamResponse:
    response = _relay_head(head)
    response.headers[hdrs.CONNECTION] = "Upgrade"
    response.headers[hdrs.UPGRADE] = "websocket"
    await response.prepare(request)
    await pass_upgraded(request, upstream, passage.note)
    response.force_close()
    return response


class _RelayedResponse(web.StreamResponse):
    """A response with the headers it was given and no others."""

    async def _prepare_headers(self) -> None:
        given = {name.lower() for name in self.headers}
        await super()._prepare_headers()
        for name in (hdrs.SERVER, hdrs.CONTENT_TYPE):  # which aiohttp makes up where there is none
            if name.lower() not in given:
                self.headers.pop(name, None)


def _relay_head(head: ResponseHead) -> web.StreamResponse:
    response = _RelayedResponse(status=head.status_code, reason=bytes(head.reason).decode("latin-1") or None)
    for name, value in response_headers(head.headers.raw_items()):
        response.headers.add(name.decode("ascii"), value.decode("utf-8", "replace"))
    return response


def _refuse(refused: Refused) -> web.StreamResponse:
    headers = {"Cache-Control": "no-store", hdrs.SERVER: "outgate"}
    if refused.retry_after_s is not None:
        headers[hdrs.RETRY_AFTER] = str(refused.retry_after_s)
    if refused.wants_token:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    body = {"message": refused.message, "code": refused.code}
    return web.json_response(body, status=refused.status, headers=headers)
