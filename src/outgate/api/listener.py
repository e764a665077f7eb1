"""granian, serving sockets that somebody else bound (and keeps open across a restart of the api)."""

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from granian._granian import SocketHolder  # the public granian.net re-exports it untyped
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from outgate.api.connection_guard import ConnectionGuard
from outgate.core.clients import Networks

REQUESTS_MAX: Final = 4096
"""Requests at once: one account's long polls (1,000) four times over."""
STREAMS_MAX: Final = 1024
"""Requests at once on one HTTP/2 connection: a client that waits for many devboxes uses one connection."""
HEAD_BYTES_MAX: Final = 64 * 1024
"""Of a request's head (431 beyond): names, keys and cookies take a few KiB."""
HEAD_MS_MAX: Final = 30_000
"""How long an HTTP/1.1 client may take for a head, and lie idle before it."""
PING_EVERY_MS: Final = 30_000
PONG_S_MAX: Final = 20
"""An HTTP/2 client that is gone without a word is noticed by these."""
STOP_S_MAX: Final = 3.0
"""How long a stop waits for answers under way: waits are told to end, so what is left takes milliseconds."""


class Listener(Server):
    """HTTP/1.1 and HTTP/2 (with prior knowledge, too) on one bound and listening socket, TCP or unix."""

    def __init__(self, app: FastAPI, bound: socket.socket, proxies: Networks = ()) -> None:
        is_local = bound.family == socket.AF_UNIX
        self._guard = None if is_local else ConnectionGuard(app, bound, REQUESTS_MAX, proxies)
        super().__init__(
            self._guard or app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.auto,
            http1_settings=HTTP1Settings(header_read_timeout=HEAD_MS_MAX, max_buffer_size=HEAD_BYTES_MAX),
            http2_settings=HTTP2Settings(
                max_concurrent_streams=STREAMS_MAX,
                max_headers_size=HEAD_BYTES_MAX,
                keep_alive_interval=PING_EVERY_MS,
                keep_alive_timeout=PONG_S_MAX,
            ),
            websockets=False,
            backlog=REQUESTS_MAX,
            backpressure=REQUESTS_MAX,
            log_enabled=False,
        )
        self._bound = bound

    def _init_shared_socket(self) -> None:
        # The base class would bind by itself; its workers are content with any listening descriptor. A copy:
        # granian closes what it is given, and the socket belongs to whoever bound it.
        holder: Any = SocketHolder
        self._shd = holder(os.dup(self._bound.fileno()), self._bound.family == socket.AF_UNIX, REQUESTS_MAX)
        self._ssp = None

    async def serve(self, *arguments: Any, **options: Any) -> None:
        """Serve until :meth:`end`."""
        guarding = None if self._guard is None else asyncio.create_task(self._guard.run())
        try:
            await super().serve(*arguments, **options)
        finally:
            if guarding is not None:
                guarding.cancel()

    def end(self) -> None:
        """Let ``serve`` return once the answers under way are sent."""
        self.interrupt_signal = True
        self.main_loop_interrupt.set()


async def end_listeners(listeners: Sequence[Listener], serving: Sequence[asyncio.Task[None]]) -> None:
    """Let the tasks that serve ``listeners`` return, within STOP_S_MAX."""
    for listener in listeners:
        listener.end()
    if serving:
        _, unfinished = await asyncio.wait(serving, timeout=STOP_S_MAX)
        for task in unfinished:
            task.cancel()


def quiet_granian() -> None:
    """Granian warns on each start that its embedded mode is young; our tests answer for it."""
    logging.getLogger("_granian").setLevel(logging.ERROR)
