"""Storage objects: create, complete, delete, sign URLs. (Their bytes travel in ``object_transfers``.)

UPLOADING → READ_ONLY → DELETED. An object that is never completed becomes an ERROR after a day.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.errors import ConflictError, NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.object_tickets import ObjectTicket, TransferKind, make_ticket
from outgate.control.repeats import claim, claim_new
from outgate.control.services import Services
from outgate.control.texts import parse_metadata, parse_name
from outgate.control.transactions import read_as, write_as
from outgate.errors import InvalidValueError
from outgate.store.objects import (
    ObjectFilter,
    ObjectRow,
    count_listed,
    find_object,
    find_object_locked,
    insert_object,
    list_objects,
    read_usage,
    save_object,
)
from outgate.store.policies import lock_account

UPLOAD_URL_S: Final = 3600
"""How long an upload may be begun after its object was created."""
DOWNLOAD_URL_S_DEFAULT: Final = 3600
DOWNLOAD_URL_S_MAX: Final = 7 * 24 * 3600
"""A week, as other object stores have it."""
TTL_MS_MAX: Final = 10 * 365 * 24 * 3600 * 1000


class ObjectState(StrEnum):
    """Where an object is."""

    UPLOADING = "UPLOADING"
    READ_ONLY = "READ_ONLY"
    DELETED = "DELETED"
    ERROR = "ERROR"


class ContentType(StrEnum):
    """What an object's bytes are said to be."""

    UNSPECIFIED = "unspecified"
    TEXT = "text"
    BINARY = "binary"
    GZIP = "gzip"
    TAR = "tar"
    TGZ = "tgz"


@dataclass(frozen=True, slots=True)
class ObjectInput:
    """A create body, of the right types and not yet judged."""

    name: str
    content_type: ContentType
    metadata: Mapping[str, str] = field(default_factory=dict)
    ttl_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """One page of a list. ``total_count`` counts all pages, or is None when it was not asked for."""

    objects: tuple[ObjectRow, ...]
    has_more: bool
    total_count: int | None


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object that was just made, and the leave to upload its bytes; None when a repeat finds it completed."""

    row: ObjectRow
    ticket: ObjectTicket | None


async def create_object(services: Services, call: Call, given: ObjectInput) -> NewObject:
    """A new object without bytes. Raises InvalidValueError (also at the account's limit)."""
    name, metadata = parse_name(given.name), json.dumps(parse_metadata(given.metadata))
    ttl_ms = given.ttl_ms
    if ttl_ms is not None and not 1 <= ttl_ms <= TTL_MS_MAX:
        message = f"{ttl_ms} is outside of 1 to {TTL_MS_MAX} milliseconds (ten years)."
        raise InvalidValueError(message, field="ttl_ms")
    wanted = ObjectRow(
        id=services.ids.make(IdPrefix.OBJECT, call.now_ms),
        account_id=call.account_id,
        name=name,
        content_type=given.content_type.value,
        state=ObjectState.UPLOADING.value,
        metadata=metadata,
        size_bytes=None,
        file=None,
        create_time_ms=call.now_ms,
        delete_after_time_ms=None if ttl_ms is None else call.now_ms + ttl_ms,
        end_time_ms=None,
    )
    row = await write_as(services, call.caller, lambda tx: _create(tx, services, call, wanted))
    if row.state != ObjectState.UPLOADING:
        return NewObject(row, None)
    expire_time_ms = call.now_ms + UPLOAD_URL_S * 1000
    return NewObject(row, make_ticket(services.keys, TransferKind.UPLOAD, row.id, expire_time_ms))


def _create(tx: Connection, services: Services, call: Call, wanted: ObjectRow) -> ObjectRow:
    def find_live(made: str) -> ObjectRow | None:
        row = find_object(tx, made)
        return None if row is None or row.end_time_ms is not None else row

    known = claim_new(tx, call.request, wanted.id, call.now_ms, find_live)
    if known is not None:
        return known
    lock_account(tx, call.account_id)
    objects_max = services.settings.objects_max
    if read_usage(tx, call.account_id).count >= objects_max:
        message = f"The account already has {objects_max} storage objects, the most it may have; delete one first."
        raise InvalidValueError(message, code="object_limit")
    insert_object(tx, wanted)
    return wanted


async def complete_object(services: Services, call: Call, object_id: str) -> ObjectRow:
    """The uploaded object, READ_ONLY from now on.

    Raises NotFoundError, ConflictError when it is not UPLOADING, InvalidValueError when nothing was uploaded.
    """

    def complete(tx: Connection) -> ObjectRow:
        row = _find_own_locked(tx, call.caller, object_id)
        if claim(tx, call.request, object_id, call.now_ms) is not None:
            return row
        if row.state != ObjectState.UPLOADING:
            message = f"Object {object_id} is {row.state}; only one that is {ObjectState.UPLOADING} can be completed."
            raise ConflictError(message, code="object_not_uploading")
        if row.file is None:
            message = f"Nothing was uploaded to object {object_id}: PUT its bytes to its upload_url first."
            raise InvalidValueError(message, code="object_empty")
        completed = replace(row, state=ObjectState.READ_ONLY.value)
        save_object(tx, completed)
        return completed

    return await write_as(services, call.caller, complete)


async def delete_object(services: Services, call: Call, object_id: str) -> ObjectRow:
    """The object, DELETED; its bytes are gone. May be called again. Raises NotFoundError."""

    def delete(tx: Connection) -> tuple[ObjectRow, str | None]:
        row = _find_own_locked(tx, call.caller, object_id)
        if row.state == ObjectState.DELETED:
            return row, None
        deleted = end_object(row, ObjectState.DELETED, call.now_ms)
        save_object(tx, deleted)
        return deleted, row.file

    deleted, file = await write_as(services, call.caller, delete)
    if file is not None:
        await asyncio.to_thread(services.objects.remove, file)
    return deleted


def end_object(row: ObjectRow, state: ObjectState, now_ms: int) -> ObjectRow:
    """``row`` in one of its last states. Its file, if it has one, may be removed once this is stored."""
    return replace(row, state=state.value, file=None, end_time_ms=now_ms)


async def get_object(services: Services, caller: Caller, object_id: str) -> ObjectRow:
    """The caller's object, deleted ones too for a week. Raises NotFoundError."""
    return await read_as(services, caller, lambda tx: read_own_object(tx, caller.account_id, object_id))


def read_own_object(tx: Connection, account_id: str, object_id: str) -> ObjectRow:
    """The account's object, inside a transaction. Raises NotFoundError."""
    row = find_object(tx, object_id) if is_id(IdPrefix.OBJECT, object_id) else None
    if row is None or row.account_id != account_id:
        raise object_not_found(object_id)
    return row


async def page_objects(
    services: Services, caller: Caller, wanted: ObjectFilter, *, limit: int, count_total: bool
) -> ObjectPage:
    """At most ``limit`` of the caller's objects, newest first, from after ``wanted.before`` on."""

    def read(tx: Connection) -> ObjectPage:
        rows = list_objects(tx, caller.account_id, wanted, limit=limit + 1)
        total = count_listed(tx, caller.account_id, wanted) if count_total else None
        return ObjectPage(tuple(rows[:limit]), len(rows) > limit, total)

    return await read_as(services, caller, read)


async def page_public_objects(services: Services, caller: Caller, *, count_total: bool) -> ObjectPage:
    """The objects that everybody may read: none, because nothing on the wire makes one public."""
    await read_as(services, caller, lambda _tx: None)
    return ObjectPage((), has_more=False, total_count=0 if count_total else None)


async def sign_download(
    services: Services, caller: Caller, object_id: str, *, duration_s: int, now_ms: int
) -> ObjectTicket:
    """The leave to download for ``duration_s``. Raises NotFoundError (deleted, too) and InvalidValueError."""
    if not 1 <= duration_s <= DOWNLOAD_URL_S_MAX:
        message = f"{duration_s} is outside of 1 to {DOWNLOAD_URL_S_MAX} seconds (a week)."
        raise InvalidValueError(message, field="duration_seconds")
    row = await get_object(services, caller, object_id)
    if row.end_time_ms is not None:
        raise object_not_found(object_id)
    if row.state != ObjectState.READ_ONLY:
        message = f"Object {object_id} is {row.state}; it can be downloaded once it is completed."
        raise InvalidValueError(message, code="object_not_ready")
    return make_ticket(services.keys, TransferKind.DOWNLOAD, row.id, now_ms + duration_s * 1000)


def object_not_found(object_id: str) -> NotFoundError:
    """The refusal for ids that name no object of the caller's."""
    shown = object_id if is_id(IdPrefix.OBJECT, object_id) else repr(object_id[:80])
    return NotFoundError(f"Object {shown} not found.", code="object_not_found")


def _find_own_locked(tx: Connection, caller: Caller, object_id: str) -> ObjectRow:
    row = find_object_locked(tx, object_id) if is_id(IdPrefix.OBJECT, object_id) else None
    if row is None or row.account_id != caller.account_id:
        raise object_not_found(object_id)
    return row
