"""A tunnel front in a thread of its own, in front of real servers on loopback that stand for devboxes."""

import asyncio
import hashlib
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from outgate.client.dialer import DialError
from outgate.clock import wall_ms
from outgate.front.activity import Activity
from outgate.front.listeners import FrontSockets, Listeners
from outgate.front.proxy import Proxy, ProxyNeeds
from outgate.front.routes import RouteTable
from outgate.front.tls import load_contexts
from outgate.front.upstream import Upstream
from outgate.model.names import DomainName
from outgate.model.tunnels import (
    INSIDE_LENGTH_BYTES,
    DialStatus,
    InsideHello,
    TunnelFeed,
    TunnelRoute,
    WakeAnswer,
    WakeState,
    make_tunnel_key,
)
from outgate.server.certificates import make_tls_files
from outgate.settings import Settings

DOMAIN: Final = DomainName("tunnel.runloop.test")
ACCOUNT: Final = "acct_own"
OTHER_ACCOUNT: Final = "acct_other"
TOKEN: Final = "the tunnel's token"  # noqa: S105 - a test's
OPEN_KEY: Final = make_tunnel_key(ACCOUNT, bytes(range(10)))
TOKEN_KEY: Final = make_tunnel_key(ACCOUNT, bytes(range(10, 20)))
OTHERS_KEY: Final = make_tunnel_key(OTHER_ACCOUNT, bytes(range(20, 30)))
FAILURES_MAX: Final = 20
ROUTES: Final = (
    TunnelRoute(OPEN_KEY, "dbx_open", ACCOUNT),
    TunnelRoute(TOKEN_KEY, "dbx_token", ACCOUNT, token_digest=hashlib.sha256(TOKEN.encode()).hexdigest()),
    TunnelRoute(OTHERS_KEY, "dbx_others", OTHER_ACCOUNT),
)


def listen(family: socket.AddressFamily, address: Any) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.bind(address)
    bound.listen(64)
    return bound


@dataclass
class FrontRig:
    """The front, and what stands around it. ``ports`` maps a devbox's port to one of this machine."""

    directory: Path
    authority: Path
    http: socket.socket
    https: socket.socket
    inside: Path
    loop: asyncio.AbstractEventLoop
    table: RouteTable
    activity: Activity
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    statuses: dict[str, DialStatus] = field(default_factory=dict)
    woken: list[str] = field(default_factory=list)
    wake_state: WakeState = WakeState.STARTING

    async def dial(self, devbox_id: str, port: int) -> Upstream:
        status = self.statuses.get(devbox_id)
        if status is not None:
            raise DialError("not now", status)
        try:
            place = ("127.0.0.1", self.ports[devbox_id, port])
            return Upstream(*await asyncio.open_connection(*place))
        except (KeyError, OSError) as error:
            raise DialError("refused", DialStatus.REFUSED) from error

    async def wake(self, key: str) -> WakeAnswer:
        self.woken.append(key)
        return WakeAnswer(self.wake_state)

    async def open_pty(self) -> Upstream:
        return Upstream(*await asyncio.open_unix_connection(self.directory / "pty.sock"))

    def call(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns, done in the front's thread."""

        async def do() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self.loop).result(10)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def connect(self) -> socket.socket:
        """A client from outside, without TLS."""
        return socket.create_connection(self.http.getsockname(), 10)

    def connect_tls(self, name: str, protocols: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLSocket:
        """A client from outside, with TLS, that trusts the local authority alone."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.set_alpn_protocols(list(protocols))
        return context.wrap_socket(socket.create_connection(self.https.getsockname(), 10), server_hostname=name)

    def connect_inside(self, hello: InsideHello) -> socket.socket:
        """What the gate does for a devbox."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(30)
        connected.connect(str(self.inside))
        said = msgspec.json.encode(hello)
        connected.sendall(len(said).to_bytes(INSIDE_LENGTH_BYTES, "big") + said)
        return connected


def name_of(key: str, port: int = 3000) -> str:
    return f"{port}-{key}.{DOMAIN}"


@contextmanager
def open_front(directory: Path, api: tuple[str, int] | None = None) -> Iterator[FrontRig]:
    """A front that knows ROUTES, until the block ends."""
    directory.mkdir(exist_ok=True)
    files = make_tls_files(Settings(state_dir=directory), DOMAIN, wall_ms())
    assert files.authority is not None
    contexts = load_contexts(files.certificate, files.key, "api.runloop.test")
    inside = directory / "inside.sock"
    http, https, from_gate = (
        listen(socket.AF_INET, ("127.0.0.1", 0)),
        listen(socket.AF_INET, ("127.0.0.1", 0)),
        listen(socket.AF_UNIX, str(inside)),
    )
    loop = uvloop.new_event_loop()
    table, activity = RouteTable(), Activity()
    rig = FrontRig(directory, files.authority, http, https, inside, loop, table, activity)
    table.apply(TunnelFeed(1, full=True, tunnels=ROUTES))

    async def serve_api(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"api: " + await reader.read(100))
        await writer.drain()
        writer.close()

    async def work() -> None:
        proxy = Proxy(ProxyNeeds(DOMAIN, table, activity, rig.dial, rig, rig.open_pty, FAILURES_MAX))
        await Listeners(proxy.handle, serve_api).serve(FrontSockets(from_gate, (os.geteuid(),), https, http), contexts)

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    task = loop.create_task(work())
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield rig
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(20)
        loop.close()
        for bound in (http, https, from_gate):
            bound.close()


def ask(
    connection: socket.socket, host: str, path: str = "/", *, method: str = "GET", **headers: str
) -> http.client.HTTPResponse:
    """One request by hand, so that nothing is added to it. Header names are written with underscores."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return response


def seen(response: http.client.HTTPResponse) -> dict[str, list[str]]:
    """The headers that the server in the devbox saw."""
    assert response.status == 200, response.read()
    found: dict[str, list[str]] = {}
    for name, value in json.loads(response.read())["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found
