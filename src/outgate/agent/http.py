"""The agent's own interface, for the api: executions, decisions, status.

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

from outgate.agent.answers import answer, answer_error, make_route, read_number
from outgate.agent.command_routes import command_routes, file_routes
from outgate.agent.executions import Executions
from outgate.agent.files import Files
from outgate.agent.flowlog import PAGE_MAX, FlowFilter, FlowLog
from outgate.agent.snapshot_routes import snapshot_routes
from outgate.agent.snapshots import Snapshots
from outgate.model.desired import HostReport

_FLOW_WAIT_S_MAX: Final = 30.0
_BEARER: Final = b"Bearer "


def build_app(
    executions: Executions,
    flows: FlowLog,
    status: Callable[[], HostReport],
    token: str,
    *,
    snapshots: Snapshots,
    files: Files,
) -> ASGIApp:
    """The agent's interface as an ASGI application that wants ``token`` as bearer."""

    async def read_flows(request: Request) -> Response:
        since = read_number(request, "since_ms", 0)
        wanted = FlowFilter(
            devbox_id=request.query_params.get("devbox_id"),
            policy_id=request.query_params.get("policy_id"),
            verdict=request.query_params.get("verdict"),
            since_ms=int(since) or None,
        )
        limit = min(max(int(read_number(request, "limit", 100)), 1), PAGE_MAX)
        after = int(read_number(request, "after", -1))
        wait_s = min(read_number(request, "wait_s", 0), _FLOW_WAIT_S_MAX)
        page = (
            await flows.read_or_wait(wanted, after, limit, wait_s) if wait_s > 0 else flows.read(wanted, after, limit)
        )
        return answer(page)

    async def read_status(_request: Request) -> Response:
        return answer(status())

    routes = [
        *command_routes(executions),
        *file_routes(files),
        *snapshot_routes(snapshots),
        make_route("/v1/flows", read_flows, "GET"),
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
