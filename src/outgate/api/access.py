"""Around every public request: its id, its numbers, its span, and one canonical line when it was answered.

Lines name the template of the route, never the path or query that was asked for: those may hold anything.
"""

from typing import TYPE_CHECKING, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outgate.clock import monotonic_s, wall_ms
from outgate.control.ids import IdMaker, IdPrefix
from outgate.control.telemetry import Answered

if TYPE_CHECKING:
    from outgate.control.callers import Caller
    from outgate.control.services import Services

REQUEST_ID: Final = "outgate.request_id"
CALLER: Final = "outgate.caller"
UNMATCHED: Final = "unmatched"
"""The route of a request that fits none."""
_ID_HEADER: Final = b"x-outgate-request-id"
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines; their lines are for debugging."""
_CLIENT_GONE: Final = 499
"""nginx's name for a client that left before its answer began."""

_log: Final = structlog.get_logger("request")
_ids: Final = IdMaker()


def request_id_of(scope: Scope) -> str:
    """The id of the request of this scope; one is made for a scope that came another way."""
    known: str | None = scope.get(REQUEST_ID)
    if known is None:
        known = scope[REQUEST_ID] = _ids.make(IdPrefix.REQUEST, wall_ms())
    return known


class AccessLog:
    """An ASGI application around ``app``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        services: Services = scope["app"].state.services
        request_id, began_s, status = request_id_of(scope), monotonic_s(), _CLIENT_GONE

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                if all(name != _ID_HEADER for name, _ in headers):
                    headers.append((_ID_HEADER, request_id.encode()))
            await send(message)

        with services.telemetry.request() as span:
            try:
                await self._app(scope, receive, send_noting)
            except Exception:
                status = 500  # a defect, which is answered outside of here
                raise
            finally:
                answered = _describe(scope, status, request_id)
                span.end(answered)
                _note(services, answered, monotonic_s() - began_s)


def _describe(scope: Scope, status: int, request_id: str) -> Answered:
    caller: Caller | None = scope.get(CALLER)
    return Answered(
        method=scope["method"],
        route=getattr(scope.get("route"), "path", UNMATCHED),
        status=status,
        request_id=request_id,
        account_id=None if caller is None else caller.account_id,
        key_id=None if caller is None else caller.key_id,
    )


def _note(services: "Services", answered: Answered, took_s: float) -> None:
    services.metrics.answered(answered.method, answered.route, answered.status, took_s)
    if answered.route in _QUIET:
        log, event = _log.debug, "probe"
    else:
        # Strangers ask as often as they like: their lines are fewer (outgate.logs).
        log, event = _log.info, "request" if answered.account_id is not None else "stranger"
    log(
        event,
        method=answered.method[:16],
        route=answered.route,
        status=answered.status,
        duration_ms=round(took_s * 1000, 1),
        account_id=answered.account_id,
        key_id=answered.key_id,
        request_id=answered.request_id,
    )
