"""``/v1/devboxes/{id}/*_file*``: files in devboxes."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.devbox_views import EmptyView
from outgate.api.execution_views import DevboxExecutionDetailView
from outgate.api.file_bodies import (
    DevboxDownloadFileParams,
    DevboxReadFileContentsParams,
    DevboxUploadFileParams,
    DevboxWriteFileContentsParams,
)
from outgate.api.openapi import FORM, MediaType, describe, describe_bytes
from outgate.api.responses import respond
from outgate.api.uploads import read_upload
from outgate.client.streamed import StreamedResponse
from outgate.control.files import open_file, write_file
from outgate.control.output_streams import decode_pieces

router: Final = APIRouter(prefix="/v1/devboxes", tags=["files"])

CONTENTS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of a body with a file's text, which is in memory as a whole; larger files are uploaded."""
_PIECE_BYTES: Final = 64 * 1024
_NOT_A_PAGE: Final = {"x-content-type-options": "nosniff"}
"""What a devbox holds is never shown as a page of this server."""


@router.post(
    "/{id}/read_file_contents",
    operation_id="readFileContents",
    summary="Read a text file",
    openapi_extra=describe_bytes(MediaType.TEXT, body=DevboxReadFileContentsParams, errors=[404, 409, 429]),
)
async def read_contents(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """The file as text; bytes that are no UTF-8 come as U+FFFD."""
    given, _ = await context.read(DevboxReadFileContentsParams)
    pieces = await open_file(context.services, context.caller, id, given.file_path, field="file_path")
    return StreamedResponse(_as_text(pieces), f"{MediaType.TEXT}; charset=utf-8", _NOT_A_PAGE)


@router.post(
    "/{id}/write_file_contents",
    operation_id="writeFileContents",
    summary="Write a text file",
    openapi_extra=describe(DevboxExecutionDetailView, body=DevboxWriteFileContentsParams, errors=[404, 409, 429]),
)
async def write_contents(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Directories above it are made; a file that is there keeps its mode and owner."""
    given, _ = await context.read(DevboxWriteFileContentsParams, bytes_max=CONTENTS_BYTES_MAX)
    data = _in_pieces(given.contents.encode())
    work = write_file(context.services, context.caller, id, given.file_path, data, field="file_path")
    await context.while_connected(work)
    return respond(DevboxExecutionDetailView(id, exit_status=0, stdout="", stderr=""))


@router.post(
    "/{id}/download_file",
    operation_id="downloadFile",
    summary="Download a file",
    openapi_extra=describe_bytes(MediaType.BYTES, body=DevboxDownloadFileParams, errors=[404, 409, 429]),
)
async def download(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """The file's bytes, of any number; the connection breaks off when the file cannot be read to its end."""
    given, _ = await context.read(DevboxDownloadFileParams)
    pieces = await open_file(context.services, context.caller, id, given.path, field="path")
    return StreamedResponse(pieces, MediaType.BYTES, _NOT_A_PAGE)


@router.post(
    "/{id}/upload_file",
    operation_id="uploadFile",
    summary="Upload a file",
    openapi_extra=describe(EmptyView, body=DevboxUploadFileParams, body_type=FORM, errors=[404, 408, 409, 429]),
)
async def upload(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """A form with ``path`` and then ``file``. Nothing is left of a new file that does not come to its end."""
    given = await read_upload(context.request, context.services.settings.upload_bytes_max)
    await write_file(context.services, context.caller, id, given.path, given.data, field="path")
    return respond(EmptyView())


async def _as_text(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in decode_pieces(pieces, 0):
            yield piece.text.encode()
    finally:
        await pieces.aclose()


async def _in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield data[start : start + _PIECE_BYTES]
