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
from granian.http import HTTP2Settings
from granian.server.embed import Server

REQUESTS_MAX: Final = 4096
"""Requests at once: one account's long polls (1,000) four times over."""
STREAMS_MAX: Final = 1024
"""Requests at once on one HTTP/2 connection: a client that waits for many devboxes uses one connection."""
STOP_S_MAX: Final = 3.0
"""How long a stop waits for answers under way: waits are told to end, so what is left takes milliseconds."""


class Listener(Server):
    """HTTP/1.1 and HTTP/2 (with prior knowledge, too) on one bound and listening socket, TCP or unix."""

    def __init__(self, app: FastAPI, bound: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.auto,
            http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS_MAX),
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
