"""The front, put together from its parts."""

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from outgate.client.dialer import dial
from outgate.client.front_api import FrontApiClient
from outgate.front.activity import Activity
from outgate.front.feed import follow
from outgate.front.listeners import FrontSockets, Listeners
from outgate.front.proxy import Proxy, ProxyNeeds
from outgate.front.routes import RouteTable
from outgate.front.sources import find_source
from outgate.front.tls import TlsContexts
from outgate.front.upstream import READ_BYTES, Upstream
from outgate.model.names import DomainName

_API_CONNECT_WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class FrontConfig:
    """What a front is made from. ``api``: where the public API listens; ``api_socket``: where it answers fronts.

    ``pty_socket``: where it takes requests for terminals; ``ssh``: where its SSH server listens, if there is one.
    ``auth_failures_max``: wrong tokens that one client may show in a minute.
    """

    domain: DomainName
    tls: TlsContexts
    sockets: FrontSockets
    api: tuple[str, int]
    api_socket: str
    dial_socket: Path
    pty_socket: Path
    ssh: tuple[str, int] | None = None
    auth_failures_max: int = 60


async def run_front(config: FrontConfig) -> None:
    """Serve until cancelled."""
    table, activity = RouteTable(), Activity()
    async with FrontApiClient(config.api_socket) as api:

        async def open_upstream(devbox_id: str, port: int) -> Upstream:
            return await Upstream.attach(await dial(config.dial_socket, devbox_id, port))

        async def open_pty() -> Upstream:
            return Upstream(*await asyncio.open_unix_connection(config.pty_socket, limit=READ_BYTES))

        proxy = Proxy(
            ProxyNeeds(config.domain, table, activity, open_upstream, api, open_pty, config.auth_failures_max)
        )
        serve_ssh = None if config.ssh is None else partial(_carry, config.ssh)
        listeners = Listeners(proxy.handle, partial(_carry, config.api), serve_ssh)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow(api, table))
            tasks.create_task(activity.run(api))
            tasks.create_task(listeners.serve(config.sockets, config.tls))


async def _carry(place: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry a client's deciphered bytes to a listener of the api process: its own speaks HTTP/1.1 and HTTP/2 on one
    port, the other one SSH.
    """
    try:
        async with asyncio.timeout(_API_CONNECT_WAIT_S):
            own = find_source(place[0], writer.get_extra_info("peername"))
            api_reader, api_writer = await asyncio.open_connection(*place, limit=READ_BYTES, local_addr=own)
    except (OSError, TimeoutError) as error:
        structlog.get_logger("api_pipe").warning("api_unreachable", why=str(error))
        writer.transport.abort()
        return
    passing = [
        asyncio.ensure_future(_pass(reader, api_writer)),
        asyncio.ensure_future(_pass(api_reader, writer)),
    ]
    try:
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        for end in (writer, api_writer):
            end.close()  # what was written goes out before the end


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(READ_BYTES):
            sink.write(data)
            await sink.drain()
