"""The bytes of storage objects, in and out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from outgate.control.errors import ConflictError, NotFoundError, TooLargeError, TransferStalledError
from outgate.control.object_files import ObjectDraft
from outgate.control.objects import ContentType, ObjectState, object_not_found
from outgate.control.pace import Pace
from outgate.control.services import Services
from outgate.errors import InvalidValueError
from outgate.store.objects import ObjectRow, find_object, find_object_locked, read_usage, save_object
from outgate.store.policies import lock_account

UPLOADS_MAX: Final = 32
"""Uploads that one account may have under way: what bounds the disk they take before they count."""
_WRITE_BYTES: Final = 1024 * 1024
"""Collected before a thread writes it: a hop to a thread costs 0.1 ms, and so 0.1 s for each gigabyte."""
_DROPPED_BYTES_MAX: Final = 8 * 1024 * 1024
"""Read and dropped of an upload that is too long, so that a client still sending gets to read the refusal."""


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object's bytes, to be read from ``descriptor``, which is the holder's to close."""

    row: ObjectRow
    descriptor: int
    size_bytes: int
    content_type: ContentType


async def receive_upload(
    services: Services, object_id: str, chunks: AsyncIterator[bytes], *, length: int | None
) -> ObjectRow:
    """The object with these bytes in place of what was uploaded before; stored and on disk, or not at all.

    ``length``: how many bytes were announced. Raises NotFoundError; ConflictError when the object is not UPLOADING;
    TooLargeError; InvalidValueError when fewer or more bytes came than were announced; StoreError.
    """
    row, limit = await services.database.read(lambda tx: _find_uploading(tx, services, object_id))
    with services.uploads.hold(row.account_id, UPLOADS_MAX):
        if length is not None and length > limit:
            await _drop(chunks)
            raise _too_large(limit)
        with await asyncio.to_thread(services.objects.draft, object_id) as draft:
            size_bytes = await _receive(draft, chunks, limit)
            if length is not None and size_bytes != length:
                message = f"{length} bytes were announced and {size_bytes} came; upload the object again."
                raise InvalidValueError(message, code="upload_incomplete")
            await asyncio.to_thread(draft.finish)
            # From here on the file stays unless the row is known not to name it: this task may be cancelled, or
            # the database lost, after the commit. If the row does not name it, the sweeper removes it.
            draft.keep()
        try:
            stored, replaced = await services.database.write(
                lambda tx: _note_upload(tx, services, object_id, draft.name, size_bytes)
            )
        except (NotFoundError, ConflictError, TooLargeError):
            await asyncio.to_thread(services.objects.remove, draft.name)
            raise
    if replaced is not None:
        await asyncio.to_thread(services.objects.remove, replaced)
    return stored


def _find_uploading(tx: Connection, services: Services, object_id: str) -> tuple[ObjectRow, int]:
    """The object, and how many bytes it may have."""
    row = _checked_uploading(find_object(tx, object_id), object_id)
    return row, _allowance(tx, services, row)


def _note_upload(
    tx: Connection, services: Services, object_id: str, file: str, size_bytes: int
) -> tuple[ObjectRow, str | None]:
    row = _checked_uploading(find_object_locked(tx, object_id), object_id)
    lock_account(tx, row.account_id)
    # Others may have uploaded meanwhile.
    limit = _allowance(tx, services, row)
    if size_bytes > limit:
        raise _too_large(limit)
    stored = replace(row, file=file, size_bytes=size_bytes)
    save_object(tx, stored)
    return stored, row.file


def _checked_uploading(row: ObjectRow | None, object_id: str) -> ObjectRow:
    if row is None or row.state == ObjectState.DELETED:
        raise object_not_found(object_id)
    if row.state != ObjectState.UPLOADING:
        message = f"Object {object_id} is {row.state}: its bytes do not change any more; create a new object."
        raise ConflictError(message, code="object_not_uploading")
    return row


def _allowance(tx: Connection, services: Services, row: ObjectRow) -> int:
    settings = services.settings
    others = read_usage(tx, row.account_id).size_bytes - (row.size_bytes or 0)
    return min(settings.object_bytes_max, max(0, settings.objects_bytes_max - others))


async def _receive(draft: ObjectDraft, chunks: AsyncIterator[bytes], limit: int) -> int:
    """Write everything; how much it was."""
    size_bytes = 0
    pending = bytearray()
    pace = Pace()
    while (chunk := await pace.next(chunks)) is not None:
        size_bytes += len(chunk)
        if size_bytes > limit:
            await _drop(chunks)
            raise _too_large(limit)
        pending += chunk
        if len(pending) >= _WRITE_BYTES:
            await asyncio.to_thread(draft.write, bytes(pending))
            pending.clear()
    await asyncio.to_thread(draft.write, bytes(pending))
    return size_bytes


async def _drop(chunks: AsyncIterator[bytes]) -> None:
    dropped, pace = 0, Pace()
    with contextlib.suppress(TransferStalledError):
        while dropped < _DROPPED_BYTES_MAX and (chunk := await pace.next(chunks)) is not None:
            dropped += len(chunk)


def _too_large(limit: int) -> TooLargeError:
    message = f"The object may have {limit:,} bytes at most: a setting bounds each object, and all of an account."
    return TooLargeError(message)


async def open_stored(services: Services, object_id: str) -> OpenObject:
    """The bytes of a READ_ONLY object, whoever's it is: the caller has checked that. Raises NotFoundError."""
    row = await services.database.read(lambda tx: find_object(tx, object_id))
    if row is None or row.state != ObjectState.READ_ONLY or row.file is None or row.size_bytes is None:
        raise object_not_found(object_id)
    try:
        descriptor = await asyncio.to_thread(services.objects.open, row.file)
    except FileNotFoundError:
        # Deleted between the two steps.
        raise object_not_found(object_id) from None
    return OpenObject(row, descriptor, row.size_bytes, ContentType(row.content_type))
