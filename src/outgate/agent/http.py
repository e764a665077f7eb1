"""The agent's own interface, for the api: executions, decisions, status.

It listens on a unix socket that only root and the api's user can open, and wants the host token besides.
Whoever holds both can run commands in devboxes; nothing here can widen a policy.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from outgate.agent.executions import LAST_LINES_DEFAULT, Executions
from outgate.agent.flowlog import PAGE_MAX, FlowFilter, FlowLog
from outgate.errors import InvalidValueError, OutgateError
from outgate.model.desired import ExecutionRequest, HostReport
from outgate.runtime.base import ExecutionNotFoundError, SandboxNotFoundError

_BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""The api takes bodies of 1 MiB; escaping can make a command longer."""
_FLOW_WAIT_S_MAX: Final = 30.0
_BEARER: Final = b"Bearer "

Handler = Callable[[Request], Awaitable[Response]]


def build_app(executions: Executions, flows: FlowLog, status: Callable[[], HostReport], token: str) -> ASGIApp:
    """The agent's interface as an ASGI application that wants ``token`` as bearer."""

    async def start_execution(request: Request) -> Response:
        wanted = msgspec.json.decode(await _read_body(request), type=ExecutionRequest)
        return _json(await executions.start(request.path_params["devbox_id"], wanted))

    async def read_execution(request: Request) -> Response:
        state = await executions.read(
            request.path_params["devbox_id"],
            request.path_params["execution_id"],
            wait_s=_number(request, "wait_s", 0),
            last_n=int(_number(request, "last_n", LAST_LINES_DEFAULT)),
        )
        return _json(state)

    async def kill_execution(request: Request) -> Response:
        return _json(
            await executions.kill(request.path_params["devbox_id"], request.path_params["execution_id"]),
        )

    async def read_flows(request: Request) -> Response:
        since = _number(request, "since_ms", 0)
        wanted = FlowFilter(
            devbox_id=request.query_params.get("devbox_id"),
            policy_id=request.query_params.get("policy_id"),
            verdict=request.query_params.get("verdict"),
            since_ms=int(since) or None,
        )
        limit = min(max(int(_number(request, "limit", 100)), 1), PAGE_MAX)
        after = int(_number(request, "after", -1))
        wait_s = min(_number(request, "wait_s", 0), _FLOW_WAIT_S_MAX)
        page = (
            await flows.read_or_wait(wanted, after, limit, wait_s) if wait_s > 0 else flows.read(wanted, after, limit)
        )
        return _json(page)

    async def read_status(_request: Request) -> Response:
        return _json(status())

    executions_path = "/v1/devboxes/{devbox_id}/executions"
    routes = [
        _route(executions_path, start_execution, "POST"),
        _route(executions_path + "/{execution_id}", read_execution, "GET"),
        _route(executions_path + "/{execution_id}/kill", kill_execution, "POST"),
        _route("/v1/flows", read_flows, "GET"),
        _route("/v1/status", read_status, "GET"),
    ]
    return _TokenGuard(Starlette(routes=routes), token)


class _TokenGuard:
    """Refuses everything that does not carry the token, before any of it is looked at."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._digest = hashlib.sha256(token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_known(scope):
            await _error(401, "unauthorized", "The host token is missing or wrong.")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        digest = hashlib.sha256(given.removeprefix(_BEARER)).digest()
        return given.startswith(_BEARER) and hmac.compare_digest(digest, self._digest)


def _route(path: str, handler: Handler, method: str) -> Route:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except (SandboxNotFoundError, ExecutionNotFoundError) as error:
            return _error(404, error.code, error.message)
        except InvalidValueError as error:
            return _error(400, error.code, error.message)
        except msgspec.DecodeError as error:
            return _error(400, "invalid_body", str(error))
        except OutgateError as error:
            return _error(500, error.code, error.message)

    return Route(path, guarded, methods=[method])


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise InvalidValueError(f"The body is longer than {_BODY_BYTES_MAX} bytes.")
    return bytes(body)


def _number(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        raise InvalidValueError(f"{name} is {text!r}; write a number.", field=name) from None
    if not abs(number) < 2**53:  # not NaN, not infinite, exact as an integer
        raise InvalidValueError(f"{name} is {text!r}; write a number of ordinary size.", field=name)
    return number


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, code: str, message: str) -> Response:
    body = msgspec.json.encode({"code": code, "message": message})
    return Response(body, status_code=status, media_type="application/json")
