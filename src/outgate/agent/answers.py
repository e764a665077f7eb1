"""How the agent's interface reads requests and answers: JSON, bounded bodies, and a status for each error."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outgate.errors import InvalidValueError, OutgateError
from outgate.runtime.base import (
    BoxFileError,
    ExecutionNotFoundError,
    SandboxBusyError,
    SandboxNotFoundError,
    StdinNotAttachedError,
)

_BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""The api takes bodies of 1 MiB; escaping can make a command longer."""

_CANNOT_BE_DONE: Final = 422
"""The request is right, and what is in the devbox does not let it be done."""
_STATUSES: Final[tuple[tuple[type[OutgateError], int], ...]] = (
    (SandboxNotFoundError, 404),
    (ExecutionNotFoundError, 404),
    (SandboxBusyError, 409),
    (StdinNotAttachedError, 409),
    (InvalidValueError, 400),
)

Handler = Callable[[Request], Awaitable[Response]]
Document = TypeVar("Document")


def make_route(path: str, handler: Handler, method: str) -> Route:
    """A route whose errors are answered as JSON with ``code`` and ``message``."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except msgspec.DecodeError as error:
            return answer_error(400, "invalid_body", str(error))
        except BoxFileError as error:
            return answer_error(_CANNOT_BE_DONE, error.problem.value, error.message)
        except OutgateError as error:
            status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
            return answer_error(status, error.code, error.message)

    return Route(path, guarded, methods=[method])


async def read_document(request: Request, kind: type[Document]) -> Document:
    """The body. Raises InvalidValueError and msgspec.DecodeError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise InvalidValueError(f"The body is longer than {_BODY_BYTES_MAX} bytes.")
    return msgspec.json.decode(bytes(body), type=kind)


def read_number(request: Request, name: str, default: float) -> float:
    """A number of the query. Raises InvalidValueError."""
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


def answer(value: object) -> Response:
    """``value`` as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def answer_error(status: int, code: str, message: str) -> Response:
    """An error as JSON."""
    return Response(
        msgspec.json.encode({"code": code, "message": message}), status_code=status, media_type="application/json"
    )
