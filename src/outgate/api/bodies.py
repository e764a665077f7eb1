"""Request bodies: read within a bound, parsed as JSON, checked against a model."""

from typing import Annotated, Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from outgate.api.errors import BodyTooLargeError, ClientGoneError
from outgate.api.validation import describe_body_error
from outgate.control.pace import Pace

B = TypeVar("B", bound=BaseModel)

BODY_CONFIG: Final = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)
"""Nothing is coerced ("true" is no boolean); unknown fields are ignored, as newer clients may send some."""
RULE_CONFIG: Final = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
"""Inside a rule an unknown field could be a restriction: dropping it would open more than was meant."""
_DROPPED_FACTOR_MAX: Final = 8
"""How much of a body that is too long is read at all, in times of what is allowed."""


def as_whole(value: Any) -> Any:
    """443 for 443.0: JSON knows one kind of number, and to JSON Schema that is an integer (2020-12, §6.1.1)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(as_whole)]


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body. Raises BodyTooLargeError when it is longer than ``bytes_max``, and TransferStalledError.

    A little more than that is read and dropped first: a client that is still sending when the connection closes
    gets a reset, which destroys the answer on its way (RFC 9112 §9.6).
    """
    chunks = []
    size = 0
    pace, stream = Pace(), aiter(request.stream())
    try:
        while (chunk := await pace.next(stream)) is not None:
            size += len(chunk)
            if size > bytes_max * _DROPPED_FACTOR_MAX:
                break
            if size <= bytes_max:
                chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGoneError("The client closed the connection while sending.") from None
    if size > bytes_max:
        raise BodyTooLargeError(f"The body is longer than {bytes_max:,} bytes, the most that is read.")
    return b"".join(chunks)


def parse_body(model: type[B], body: bytes) -> B:
    """``body`` as a ``model``; an empty body counts as ``{}``. Raises InvalidValueError naming the field."""
    try:
        return model.model_validate_json(body.strip() or b"{}")
    except ValidationError as error:
        raise describe_body_error(error.errors(include_url=False)[0]) from None
