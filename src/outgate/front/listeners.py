"""Where requests come in: from outside with TLS and without, and out of devboxes by way of the gate."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

import msgspec
import structlog
from aiohttp import web

from outgate.front.proxy import ClientConnection
from outgate.front.tls import TlsContexts
from outgate.model.tunnels import INSIDE_LENGTH_BYTES, InsideHello

CONNECTIONS_MAX: Final = 8192
"""Two descriptors and some 200 KiB each at worst; more than that is refused at once."""
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
    """Bound and listening; None where nothing is to be served."""

    inside: socket.socket
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
        self._open = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("listeners")

    async def serve(self, sockets: FrontSockets, tls: TlsContexts) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        servers = []
        if sockets.https is not None:
            factory = lambda: _Switch(self._client(None), self._pipes(tls))  # noqa: E731 - a factory, once
            servers.append(
                await loop.create_server(
                    factory, sock=sockets.https, ssl=tls.outside, ssl_handshake_timeout=TLS_HANDSHAKE_S_MAX
                )
            )
        if sockets.http is not None:
            servers.append(await loop.create_server(lambda: self._client(None), sock=sockets.http))
        try:
            await self._accept_inside(sockets.inside, tls)
        finally:
            for server in servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._manager.shutdown(_SHUTDOWN_S_MAX)

    def _client(self, inside: InsideHello | None) -> "_Counted":
        return _Counted(self, self._manager, inside=inside, **_SERVER_OPTIONS)

    def _pipes(self, tls: TlsContexts) -> dict[ssl.SSLContext, asyncio.BaseProtocol]:
        pipes = {tls.api: self._serve_api, tls.ssh: self._serve_ssh}
        return {context: self._pipe(serve) for context, serve in pipes.items() if serve is not None}

    def _pipe(self, serve: Pipe) -> asyncio.StreamReaderProtocol:
        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._tasks) >= CONNECTIONS_MAX:
                writer.transport.abort()
                return
            self._keep(serve(reader, writer))

        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), begin)

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take_place(self) -> bool:
        """Whether there is room for another client."""
        if self._open >= CONNECTIONS_MAX:
            return False
        self._open += 1
        return True

    def give_place_back(self) -> None:
        """A client that had one left."""
        self._open -= 1

    async def _accept_inside(self, listening: socket.socket, tls: TlsContexts) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._log.warning("accept_failed", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            accepted.setblocking(False)
            self._keep(self._begin_inside(accepted, tls))

    async def _begin_inside(self, accepted: socket.socket, tls: TlsContexts) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HELLO_WAIT_S_MAX):
                hello = await _read_hello(accepted)
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            self._log.warning("bad_hello", error=str(error))
            accepted.close()
            return
        except BaseException:
            accepted.close()
            raise
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            # A devbox that ends its handshake in the middle is nothing to talk about.
            await loop.connect_accepted_socket(
                lambda: self._client(hello),
                accepted,
                ssl=tls.inside if hello.is_tls else None,
                ssl_handshake_timeout=TLS_HANDSHAKE_S_MAX if hello.is_tls else None,
            )


async def _read_hello(accepted: socket.socket) -> InsideHello:
    """What the gate says first; not a byte behind it is read. Raises OSError and msgspec.DecodeError."""
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


class _Counted(ClientConnection):
    """A client's connection that holds one of the places there are."""

    def __init__(
        self, places: Listeners, manager: web.Server, *, inside: InsideHello | None, **options: object
    ) -> None:
        super().__init__(manager, inside=inside, **options)
        self._places = places
        self._has_place = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse what is too many."""
        self._has_place = self._places.take_place()
        super().connection_made(transport)
        if not self._has_place:
            cast("asyncio.Transport", transport).abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        if self._has_place:
            self._has_place = False
            self._places.give_place_back()
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
