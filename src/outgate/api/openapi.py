"""The OpenAPI 3.1 document: FastAPI's paths and parameters, pydantic's bodies, msgspec's answers, our errors."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from outgate import __version__
from outgate.api.errors import ErrorView

_JSON: Final = "application/json"
_REF: Final = "#/components/schemas/{name}"
_BODY_KEY: Final = "x-body"
_BODY_TYPE_KEY: Final = "x-body-type"
_MEDIA_KEY: Final = "x-media"
_VIEW_KEY: Final = "x-view"
_ERRORS_KEY: Final = "x-errors"
_HEADERS_KEY: Final = "x-headers"
_OPTIONAL_KEY: Final = "x-body-optional"
_PUBLIC_KEY: Final = "x-public"

FORM: Final = "multipart/form-data"


class MediaType(StrEnum):
    """What is answered that is not JSON."""

    TEXT = "text/plain"
    BYTES = "application/octet-stream"
    EVENTS = "text/event-stream"


# FastAPI serialises what a route carries, so routes carry names and these tables the types.
_BODIES: Final[dict[str, type[BaseModel]]] = {}
_VIEWS: Final[dict[str, type[msgspec.Struct]]] = {ErrorView.__name__: ErrorView}

_REASONS: Final = {
    200: "OK",
    400: "A value cannot be used; the message says which and what to write instead.",
    401: "No valid API key.",
    403: "The key may not do this.",
    404: "There is no such thing in this account.",
    408: "The wait ended before it happened, or the body came too slowly.",
    409: "This contradicts what is there.",
    413: "The body is longer than is taken, 1 MiB unless the route says otherwise.",
    429: "Too many waiting requests, or too many wrong keys.",
    500: "Outgate or its database failed; nothing was changed.",
    503: "Try again in a moment.",
}
_ALWAYS: Final = (400, 401, 403, 429, 500, 503)
_STATUSES_OF_BODIES: Final = (408, 413)


def describe(
    view: type[msgspec.Struct],
    *,
    body: type[BaseModel] | None = None,
    body_type: str = _JSON,
    is_body_optional: bool = False,
    errors: Iterable[int] = (),
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """``openapi_extra`` of a route: its answer, its body, the errors that are its own, its response headers."""
    described = _describe_view(view) | {_ERRORS_KEY: list(errors), _HEADERS_KEY: headers or {}}
    return described | _describe_body(body, body_type, is_optional=is_body_optional)


def describe_bytes(
    media: MediaType,
    *,
    view: type[msgspec.Struct] | None = None,
    body: type[BaseModel] | None = None,
    errors: Iterable[int] = (),
) -> dict[str, Any]:
    """The same of a route that answers with something else than JSON; ``view`` is what each event of a stream holds."""
    described: dict[str, Any] = {_MEDIA_KEY: media.value, _ERRORS_KEY: list(errors), _HEADERS_KEY: {}}
    if view is not None:
        described |= _describe_view(view)
    return described | _describe_body(body, _JSON, is_optional=False)


def _describe_body(body: type[BaseModel] | None, body_type: str, *, is_optional: bool) -> dict[str, Any]:
    if body is None:
        return {}
    _BODIES[body.__name__] = body
    return {_BODY_KEY: body.__name__, _BODY_TYPE_KEY: body_type, _OPTIONAL_KEY: is_optional}


def describe_public(view: type[msgspec.Struct], *, has_503: bool = False) -> dict[str, Any]:
    """``openapi_extra`` of a route for anybody, whose 503, if it has one, looks like its 200."""
    return _describe_view(view) | {_PUBLIC_KEY: has_503}


def _describe_view(view: type[msgspec.Struct]) -> dict[str, Any]:
    _VIEWS[view.__name__] = view
    return {_VIEW_KEY: view.__name__}


def make_document(app: FastAPI) -> dict[str, Any]:
    """The document of all routes of ``app``; each was given :func:`describe` or :func:`describe_public`."""
    document = get_openapi(
        title="Outgate",
        version=__version__,
        openapi_version="3.1.0",
        summary="An egress policy that holds, for sandboxes.",
        routes=app.routes,
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            _finish_operation(operation)
    document["components"] = {
        "schemas": _make_schemas(),
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
    }
    document["security"] = [{"bearer": []}]
    return document


def _finish_operation(operation: dict[str, Any]) -> None:
    view = operation.pop(_VIEW_KEY, "")
    if _PUBLIC_KEY in operation:
        statuses_of_view = (200, 503) if operation.pop(_PUBLIC_KEY) else (200,)
        operation["security"] = []
        operation["responses"] = {
            str(status): {"description": _REASONS[status], "content": _json_of(view)} for status in statuses_of_view
        }
        return
    statuses = {*_ALWAYS, *operation.pop(_ERRORS_KEY)}
    media = operation.pop(_MEDIA_KEY, None)
    content = _json_of(view) if media is None else _bytes_of(media)
    ok: dict[str, Any] = {"description": _REASONS[200], "content": content}
    if media == MediaType.EVENTS:
        ok["description"] = f"Events, each with the JSON of a {view} as its data."
    headers = operation.pop(_HEADERS_KEY)
    if headers:
        ok["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    if _BODY_KEY in operation:
        statuses.update(_STATUSES_OF_BODIES)
        is_required = not operation.pop(_OPTIONAL_KEY)
        body = _json_of(operation.pop(_BODY_KEY))[_JSON]
        operation["requestBody"] = {"required": is_required, "content": {operation.pop(_BODY_TYPE_KEY): body}}
    operation["responses"] = {"200": ok} | {
        str(status): {"description": _REASONS[status], "content": _json_of(ErrorView.__name__)}
        for status in sorted(statuses)
    }


def _bytes_of(media: str) -> dict[str, Any]:
    return {media: {"schema": {"type": "string"}}}


def _json_of(schema: str) -> dict[str, Any]:
    return {_JSON: {"schema": {"$ref": _REF.format(name=schema)}}}


def _make_schemas() -> dict[str, Any]:
    # The two libraries name the place of the name differently.
    _, of_bodies = models_json_schema(
        [(body, "validation") for body in _BODIES.values()], ref_template=_REF.replace("{name}", "{model}")
    )
    _, of_views = msgspec.json.schema_components(_VIEWS.values(), ref_template=_REF)
    return dict(sorted((of_bodies["$defs"] | of_views).items()))
