"""The agent's own interface, for the api: executions, files, snapshots, status.

It listens on a unix socket that only root and the api's user can open, and wants the host token besides.
Whoever holds both can run commands in devboxes; nothing here can widen a policy.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from outgate.agent.answers import answer, answer_error, make_route
from outgate.agent.command_routes import command_routes, file_routes
from outgate.agent.executions import Executions
from outgate.agent.files import Files
from outgate.agent.snapshot_routes import snapshot_routes
from outgate.agent.snapshots import Snapshots
from outgate.model.desired import HostReport

_BEARER: Final = b"Bearer "


def build_app(
    executions: Executions,
    status: Callable[[], HostReport],
    token: str,
    *,
    snapshots: Snapshots,
    files: Files,
) -> ASGIApp:
    """The agent's interface as an ASGI application that wants ``token`` as bearer."""

    async def read_status(_request: Request) -> Response:
        return answer(status())

    routes = [
        *command_routes(executions),
        *file_routes(files),
        *snapshot_routes(snapshots),
        make_route("/v1/status", read_status, "GET"),
    ]
    return _TokenGuard(Starlette(routes=routes), token)


class _TokenGuard:
    """Refuses everything that does not carry the token, before any of it is looked at."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._digest = hashlib.sha256(token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_known(scope):
            await answer_error(401, "unauthorized", "The host token is missing or wrong.")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        digest = hashlib.sha256(given.removeprefix(_BEARER)).digest()
        return given.startswith(_BEARER) and hmac.compare_digest(digest, self._digest)
