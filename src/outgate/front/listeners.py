"""Where requests come in: from outside with TLS and without, and out of devboxes by way of the gate."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
import structlog
from aiohttp import web

from outgate.client.peers import peer_uid
from outgate.core.clients import client_of
from outgate.front.places import Place, Places
from outgate.front.proxy import ClientConnection
from outgate.front.tls import TlsContexts
from outgate.model.tunnels import INSIDE_LENGTH_BYTES, InsideHello

TLS_HANDSHAKE_S_MAX: Final = 10.0
IDLE_S_MAX: Final = 60.0
"""How long a connection may lie without a request, or take to send the head of one."""
HELLO_WAIT_S_MAX: Final = 5.0
HEAD_LINE_BYTES_MAX: Final = 16 * 1024
HEAD_FIELDS_MAX: Final = 128
_HELLO_BYTES_MAX: Final = 1024
_ACCEPT_PAUSE_S: Final = 0.1
_SHUTDOWN_S_MAX: Final = 0.5
"""What requests under way are given at a stop; the devboxes go on, and clients ask again."""
_HELLO: Final = msgspec.json.Decoder(InsideHello)

_SERVER_OPTIONS: Final = {
    "keepalive_timeout": IDLE_S_MAX,
    "max_line_size": HEAD_LINE_BYTES_MAX,
    "max_field_size": HEAD_LINE_BYTES_MAX,
    "max_headers": HEAD_FIELDS_MAX,
    "auto_decompress": False,  # bodies pass as they are
    "access_log": None,
    "logger": logging.getLogger("outgate.front.requests"),
}
# It tells of every request that is none, at length: strangers would write our log. Our own faults the proxy tells.
logging.getLogger("outgate.front.requests").setLevel(logging.CRITICAL)

Pipe = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class FrontSockets:
    """Bound and listening; None where nothing is to be served.

    ``inside`` serves processes of ``inside_uids`` alone: what they say of who a devbox is, is believed.
    """

    inside: socket.socket
    inside_uids: Collection[int]
    https: socket.socket | None = None
    http: socket.socket | None = None


class Listeners:
    """All of them around one handler, and pipes to the API and the SSH server. Belongs to the event loop's thread."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        serve_api: Pipe,
        serve_ssh: Pipe | None = None,
    ) -> None:
        # A client that leaves takes its request along: nobody waits for the devbox's answer any more.
        self._manager = web.Server(handler, handler_cancellation=True)
        self._serve_api = serve_api
        self._serve_ssh = serve_ssh
        self._places = Places()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("listeners")

    async def serve(self, sockets: FrontSockets, tls: TlsContexts) -> None:
        """Until cancelled."""
        begin_inside = partial(self._begin_inside, uids=sockets.inside_uids, tls=tls)
        accepting: list[Coroutine[None, None, None]] = [self._accept(sockets.inside, begin_inside)]
        if sockets.https is not None:
            accepting.append(self._accept(sockets.https, partial(self._begin_outside, tls=tls)))
        if sockets.http is not None:
            accepting.append(self._accept(sockets.http, partial(self._begin_outside, tls=None)))
        try:
            async with asyncio.TaskGroup() as group:
                for work in accepting:
                    group.create_task(work)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._manager.shutdown(_SHUTDOWN_S_MAX)

    def _client(self, place: Place, inside: InsideHello | None) -> "_Placed":
        return _Placed(place, self._manager, inside=inside, **_SERVER_OPTIONS)

    def _pipes(self, tls: TlsContexts, place: Place) -> dict[ssl.SSLContext, asyncio.BaseProtocol]:
        pipes = {tls.api: self._serve_api, tls.ssh: self._serve_ssh}
        return {context: self._pipe(serve, place) for context, serve in pipes.items() if serve is not None}

    def _pipe(self, serve: Pipe, place: Place) -> asyncio.StreamReaderProtocol:
        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._keep(serve(reader, writer)).add_done_callback(lambda _: place.free())

        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), begin)

    def _keep(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listening: socket.socket, begin: Callable[[socket.socket, Place], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                self._log.warning("accept_failed", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            place = self._places.take(client_of(address[0]) if isinstance(address, tuple) else None)
            if place is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            self._keep(begin(accepted, place))

    async def _begin_outside(self, accepted: socket.socket, place: Place, *, tls: TlsContexts | None) -> None:
        if tls is None:
            await _connect(accepted, place, lambda: self._client(place, None))
            return
        await _connect(
            accepted, place, lambda: _Switch(self._client(place, None), self._pipes(tls, place)), tls=tls.outside
        )

    async def _begin_inside(
        self, accepted: socket.socket, place: Place, *, uids: Collection[int], tls: TlsContexts
    ) -> None:
        try:
            async with asyncio.timeout(HELLO_WAIT_S_MAX):
                hello = await _read_hello(accepted, uids)
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            self._log.warning("bad_hello", error=str(error))
            accepted.close()
            place.free()
            return
        except BaseException:
            accepted.close()
            place.free()
            raise
        context = tls.inside if hello.is_tls else None
        await _connect(accepted, place, lambda: self._client(place, hello), tls=context)


async def _connect(
    accepted: socket.socket,
    place: Place,
    make: Callable[[], asyncio.BaseProtocol],
    *,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Begin to serve a client. The place is free again when its protocol is done, or never began."""
    try:
        await asyncio.get_running_loop().connect_accepted_socket(
            make, accepted, ssl=tls, ssl_handshake_timeout=None if tls is None else TLS_HANDSHAKE_S_MAX
        )
    except (OSError, ssl.SSLError, TimeoutError):
        # A client that ends its handshake in the middle is nothing to talk about.
        place.free()
    except BaseException:
        place.free()
        raise


async def _read_hello(accepted: socket.socket, uids: Collection[int]) -> InsideHello:
    """What the gate says first; not a byte behind it is read. Raises OSError and msgspec.DecodeError."""
    uid = peer_uid(accepted)
    if uid not in uids:
        raise ConnectionAbortedError(f"it is uid {uid}, who says nothing here")
    length = int.from_bytes(await _read_exactly(accepted, INSIDE_LENGTH_BYTES), "big")
    if length > _HELLO_BYTES_MAX:
        raise ConnectionAbortedError(f"it announced {length} bytes")
    return _HELLO.decode(await _read_exactly(accepted, length))


async def _read_exactly(accepted: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = await asyncio.get_running_loop().sock_recv(accepted, length - len(data))
        if not piece:
            raise ConnectionResetError("it closed the connection")
        data += piece
    return data


class _Placed(ClientConnection):
    """A client's connection that holds one of the places there are."""

    def __init__(self, place: Place, manager: web.Server, *, inside: InsideHello | None, **options: object) -> None:
        super().__init__(manager, inside=inside, **options)
        self._place = place

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        self._place.free()
        super().connection_lost(exc)


class _Switch(asyncio.Protocol):
    """Waits for the TLS handshake, which says whether the client wants the API, the SSH server or a tunnel."""

    def __init__(self, tunnel: asyncio.BaseProtocol, pipes: dict[ssl.SSLContext, asyncio.BaseProtocol]) -> None:
        self._tunnel, self._pipes = tunnel, pipes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to whom it is for."""
        chosen = self._pipes.get(transport.get_extra_info("ssl_object").context, self._tunnel)
        transport.set_protocol(chosen)
        chosen.connection_made(transport)
