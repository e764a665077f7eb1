"""Request bodies: read within a bound, parsed as JSON, checked against a model."""

from typing import Annotated, Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect

from outgate.api.errors import BodyTooLargeError, ClientGoneError
from outgate.api.validation import describe_body_error

B = TypeVar("B", bound=BaseModel)

BODY_CONFIG: Final = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)
"""Nothing is coerced ("true" is no boolean); unknown fields are ignored, as newer clients may send some."""
RULE_CONFIG: Final = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)
"""Inside a rule an unknown field could be a restriction: dropping it would open more than was meant."""


def _whole(value: Any) -> Any:
    # JSON knows one kind of number: 443.0 is the integer 443 (JSON Schema 2020-12, §6.1.1).
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body. Raises BodyTooLargeError as soon as it is longer than ``bytes_max``."""
    chunks = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > bytes_max:
                raise BodyTooLargeError(f"The body is longer than {bytes_max:,} bytes, the most that is read.")
            chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGoneError("The client closed the connection while sending.") from None
    return b"".join(chunks)


def parse_body(model: type[B], body: bytes) -> B:
    """``body`` as a ``model``; an empty body counts as ``{}``. Raises InvalidValueError naming the field."""
    try:
        return model.model_validate_json(body.strip() or b"{}")
    except ValidationError as error:
        raise describe_body_error(error.errors(include_url=False)[0]) from None
