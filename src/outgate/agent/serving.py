"""The agent's interface on a unix socket that somebody else bound."""

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from granian._granian import SocketHolder  # the public granian.net re-exports it untyped
from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.types import ASGIApp

if TYPE_CHECKING:
    from collections.abc import Callable

_REQUESTS_MAX: Final = 4096
"""Waits for executions: as many as the api itself may have open."""


def bind_unix(path: Path, *, owner: int | None = None, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A listening socket at ``path``, which from its first moment on only the user ``owner`` (None: this process's
    own) and root can connect to: connect(2) wants the right to write, and a group may have other members.

    A socket that was left there is replaced. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, kind)
    bound.bind(str(draft))
    draft.chmod(0o600)
    if owner is not None:
        os.chown(draft, owner, -1)
    bound.listen(_REQUESTS_MAX)
    draft.replace(path)
    return bound


async def serve_unix(app: ASGIApp, bound: socket.socket) -> None:
    """Serve ``app`` on ``bound`` until cancelled; returns early only by an error."""
    logging.getLogger("_granian").setLevel(logging.ERROR)  # it warns at each start that its embedded mode is young
    server = _BoundServer(app, bound)
    try:
        await server.serve()
    except asyncio.CancelledError:
        server.end()
        raise
    raise RuntimeError("the agent's listener ended by itself")


class _BoundServer(Server):
    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=_REQUESTS_MAX,
            backpressure=_REQUESTS_MAX,
            log_enabled=False,
        )
        self._bound = bound

    def _init_shared_socket(self) -> None:
        # granian closes what it is given, and the socket belongs to whoever bound it.
        holder: Any = SocketHolder
        is_unix = True
        self._shd = holder(os.dup(self._bound.fileno()), is_unix, _REQUESTS_MAX)
        self._ssp = None

    def end(self) -> None:
        """Let ``serve`` return once the answers under way are sent."""
        interrupt: Callable[[], None] = self.signal_handler_interrupt
        interrupt()
