"""Errors as responses: always JSON, always with ``message``, ``code`` and ``request_id``."""

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from outgate.api.access import request_id_of
from outgate.api.validation import describe_parameter_error
from outgate.clock import wall_ms
from outgate.control.errors import (
    ConflictError,
    ExecutionWaitTimeoutError,
    ForbiddenError,
    HostUnavailableError,
    NotFoundError,
    StoppingError,
    TooLargeError,
    TooManyAttemptsError,
    TooManyWaitsError,
    TransferStalledError,
    UnauthorizedError,
    WaitTimeoutError,
)
from outgate.control.ids import IdMaker, IdPrefix
from outgate.errors import InvalidValueError, OutgateError
from outgate.store.errors import StoreBusyError

_log: Final = structlog.get_logger(__name__)
_request_ids: Final = IdMaker()

# Clients retry 408, 409, 429 and 5xx, for up to half a minute, unless this header says otherwise.
_RETRY: Final = {"x-should-retry": "true"}
_PARAMETER: Final = re.compile(r"\{[^}]+\}")
_NO_RETRY: Final = {"x-should-retry": "false"}


class ErrorView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every error. ``code`` is stable and for programs; ``field`` is the path of the value to blame."""

    message: str
    code: str
    request_id: str
    field: str | None = None


class BodyTooLargeError(OutgateError):
    """The body is longer than the api reads."""

    code = "body_too_large"


class LengthRequiredError(OutgateError):
    """The body's length must be known beforehand."""

    code = "length_required"


class ClientGoneError(OutgateError):
    """The client closed the connection; nobody reads the answer."""

    code = "client_gone"


@dataclass(frozen=True, slots=True)
class Rendering:
    """How one class of errors leaves: its status, and what headers tell clients to do."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


# The first class that fits counts, so subclasses come before their bases.
_RENDERINGS: Final[tuple[tuple[type[OutgateError], Rendering], ...]] = (
    (InvalidValueError, Rendering(400)),
    (UnauthorizedError, Rendering(401, {"www-authenticate": "Bearer"})),
    (ForbiddenError, Rendering(403)),
    (NotFoundError, Rendering(404)),
    (ExecutionWaitTimeoutError, Rendering(408, _RETRY)),
    (WaitTimeoutError, Rendering(408)),
    (TransferStalledError, Rendering(408)),
    (ConflictError, Rendering(409, _NO_RETRY)),
    (LengthRequiredError, Rendering(411)),
    (BodyTooLargeError, Rendering(413)),
    (TooLargeError, Rendering(413)),
    (TooManyWaitsError, Rendering(429, {"retry-after": "1"})),
    (TooManyAttemptsError, Rendering(429, _RETRY)),
    # 499: nginx's name for it; it is seen in logs only.
    (ClientGoneError, Rendering(499)),
    (HostUnavailableError, Rendering(503, _RETRY | {"retry-after": "1"})),
    (StoppingError, Rendering(503, _RETRY | {"retry-after": "1"})),
    (StoreBusyError, Rendering(503, _RETRY | {"retry-after": "1"})),
    (OutgateError, Rendering(500, _NO_RETRY)),
)


def find_rendering(kind: type[OutgateError]) -> Rendering:
    """How errors of this class leave."""
    return next(rendering for known, rendering in _RENDERINGS if issubclass(kind, known))


def render_error(error: OutgateError, request_id: str | None = None) -> Response:
    """The response for ``error``, under an id of its own if the request has none."""
    rendering = find_rendering(type(error))
    blamed = error.field if isinstance(error, InvalidValueError) else None
    message = error.message
    if blamed is not None and not message.startswith(blamed):
        message = f"{blamed}: {message}"
    headers = rendering.headers
    if isinstance(error, TooManyAttemptsError):
        headers = headers | {"retry-after": str(error.wait_s)}
    return _respond(rendering.status, message, error.code, headers, blamed, request_id=request_id)


def _respond(
    status: int,
    message: str,
    code: str,
    headers: dict[str, str] | None = None,
    blamed: str | None = None,
    *,
    request_id: str | None = None,
) -> Response:
    request_id = request_id or _request_ids.make(IdPrefix.REQUEST, wall_ms())
    if status >= 500:
        # 503 passes by itself; anything else is for somebody to look at.
        log = _log.warning if status == 503 else _log.error
        log("request failed", status=status, code=code, error=message, request_id=request_id)
    view = ErrorView(message=message, code=code, request_id=request_id, field=blamed)
    return Response(
        msgspec.json.encode(view), status, {"x-outgate-request-id": request_id} | (headers or {}), "application/json"
    )


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of ``app`` leave as an :class:`ErrorView`."""
    app.add_exception_handler(OutgateError, _on_outgate_error)
    app.add_exception_handler(RequestValidationError, _on_parameter_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_defect)


async def _on_outgate_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OutgateError)  # noqa: S101 - Starlette calls it for this class only
    return render_error(error, request_id_of(request.scope))


async def _on_parameter_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - Starlette calls it for this class only
    return render_error(describe_parameter_error(error.errors()[0]), request_id_of(request.scope))


async def _on_http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses: paths and methods that do not exist."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls it for this class only
    request_id = request_id_of(request.scope)
    asked = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        message = f"There is no {asked} here; /openapi.json lists what there is."
        return _respond(404, message, "no_such_route", request_id=request_id)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = _allowed_methods(request) or headers["Allow"]
        message = f"There is no {asked} here; this path takes {headers['Allow']}."
        return _respond(405, message, "method_not_allowed", headers, request_id=request_id)
    return _respond(error.status_code, str(error.detail), "http_error", headers, request_id=request_id)


def _allowed_methods(request: Request) -> str:
    """All methods of the path (RFC 9110 §10.2.1); Starlette names only those of one of the routes that fit it."""
    document = getattr(request.app.state, "paths", {})
    path = request.url.path
    # A path that is written out wins over one with a parameter, as it does in the router.
    for template in sorted(document, key=lambda template: "{" in template):
        if re.fullmatch(_PARAMETER.sub("[^/]+", template), path):
            return ", ".join(sorted(method.upper() for method in document[template]))
    return ""


async def _on_defect(request: Request, error: Exception) -> Response:
    request_id = request_id_of(request.scope)
    _log.error("defect", request_id=request_id, route=f"{request.method} {request.url.path[:200]}", exc_info=error)
    message = "Outgate made a mistake; its log has the details, near this request_id."
    return _respond(500, message, "internal", _NO_RETRY, request_id=request_id)
