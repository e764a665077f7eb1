"""Where pre-signed URLs lead: the bytes of storage objects, in and out, without an API key.

Not part of the OpenAPI document: clients get these URLs, they do not make them.
"""

import os
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from outgate.api.context import services_of
from outgate.api.errors import ClientGoneError, LengthRequiredError
from outgate.api.object_urls import TRANSFER_PATH
from outgate.clock import wall_ms
from outgate.control.ids import IdPrefix, is_id
from outgate.control.object_tickets import ObjectTicket, TransferKind, check_ticket
from outgate.control.object_transfers import OpenObject, open_stored, receive_upload
from outgate.control.objects import ContentType, object_not_found
from outgate.errors import InvalidValueError

router: Final = APIRouter(prefix=TRANSFER_PATH, include_in_schema=False)

_MEDIA_TYPES: Final = {
    ContentType.UNSPECIFIED: "application/octet-stream",
    ContentType.TEXT: "text/plain; charset=utf-8",
    ContentType.BINARY: "application/octet-stream",
    ContentType.GZIP: "application/gzip",
    ContentType.TAR: "application/x-tar",
    ContentType.TGZ: "application/gzip",
}


@router.put("/{id}")
async def upload(request: Request, id: str) -> Response:  # noqa: A002 - as on the other object routes
    """Takes the object's bytes, whole or not at all; the last upload before ``complete`` counts."""
    _check(request, TransferKind.UPLOAD, id)
    length = _read_length(request)
    await receive_upload(services_of(request), id, _chunks(request), length=length)
    return Response(status_code=200)


@router.get("/{id}")
@router.head("/{id}")
async def download(request: Request, id: str) -> Response:  # noqa: A002 - as on the other object routes
    """The object's bytes, or the ranges of them that were asked for (RFC 9110 §14)."""
    _check(request, TransferKind.DOWNLOAD, id)
    return ObjectResponse(await open_stored(services_of(request), id))


class ObjectResponse(FileResponse):
    """An open object as a response. Its descriptor is closed whatever becomes of the client."""

    def __init__(self, opened: OpenObject) -> None:
        self._descriptor = opened.descriptor
        # By descriptor and not by name: an object that is deleted meanwhile is still read to its end.
        super().__init__(
            f"/proc/self/fd/{opened.descriptor}",
            media_type=_MEDIA_TYPES[opened.content_type],
            stat_result=os.fstat(opened.descriptor),
            filename=opened.row.name,
        )
        # What a stranger uploaded is never shown as a page of this server.
        MutableHeaders(raw=self.raw_headers)["x-content-type-options"] = "nosniff"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        # Without extensions: the server would open the path by itself, after the descriptor was closed.
        try:
            await super().__call__({**scope, "extensions": {}}, receive, send)
        finally:
            os.close(self._descriptor)


def _check(request: Request, kind: TransferKind, object_id: str) -> None:
    if not is_id(IdPrefix.OBJECT, object_id):
        raise object_not_found(object_id)
    expires = request.query_params.get("expires_ms", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 16):
        raise InvalidValueError("This URL lacks its end; use it as the API gave it.", field="expires_ms")
    ticket = ObjectTicket(kind, object_id, int(expires), request.query_params.get("signature", ""))
    check_ticket(services_of(request).keys, ticket, wall_ms())


def _read_length(request: Request) -> int | None:
    """How many bytes were announced.

    Raises LengthRequiredError for HTTP/2 without: a stream that is reset looks like one that ended.
    """
    text = request.headers.get("content-length")
    if text is not None and text.isascii() and text.isdigit():
        return int(text)
    if request.scope["http_version"].startswith("2"):
        raise LengthRequiredError("Over HTTP/2 an upload needs a Content-Length; send one, or use HTTP/1.1.")
    return None


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise ClientGoneError("The client closed the connection while sending.") from None
