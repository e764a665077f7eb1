"""Devboxes that are there: describe, keep alive, suspend, resume, shut down.

(Creating them is in ``devbox_creation``, reading and waiting in ``devbox_reading``, what happens by itself in
``devbox_expiry``.)
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.devbox_states import (
    DevboxStatus,
    ShutdownReason,
    Step,
    end_by_request,
    lifetime_ms,
    resume_by_request,
    suspend_by_request,
)
from outgate.control.errors import ConflictError, NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.repeats import claim
from outgate.control.services import Services
from outgate.control.texts import parse_metadata, parse_short_text
from outgate.control.transactions import write_as
from outgate.control.wakeups import Subject, Topic
from outgate.errors import InvalidValueError
from outgate.store.devboxes import DevboxRow, find_devbox, find_devbox_locked, postpone_end, save_devbox
from outgate.store.sequence import take_numbers
from outgate.store.snapshots import is_in_progress


@dataclass(frozen=True, slots=True)
class DevboxDescription:
    """An update: None keeps."""

    name: str | None = None
    metadata: Mapping[str, str] | None = None


async def describe_devbox(services: Services, call: Call, devbox_id: str, given: DevboxDescription) -> DevboxRow:
    """Change name or metadata; ``""`` and ``{}`` clear. Raises NotFoundError and InvalidValueError."""
    name = None if given.name is None else parse_short_text(given.name, field="name")
    metadata = None if given.metadata is None else json.dumps(parse_metadata(given.metadata))

    def describe(tx: Connection) -> DevboxRow:
        row = find_own_locked(tx, call, devbox_id)
        changed = replace(
            row, name=row.name if name is None else name, metadata=row.metadata if metadata is None else metadata
        )
        save_devbox(tx, changed)
        return changed

    return await write_as(services, call.caller, describe)


async def keep_devbox_alive(services: Services, call: Call, devbox_id: str) -> None:
    """Start the keep-alive time, or the idle time, anew.

    Raises NotFoundError, and ConflictError for an ended devbox.
    """

    def extend(tx: Connection) -> None:
        row = find_own_locked(tx, call, devbox_id)
        if row.end_time_ms is not None:
            raise ConflictError(f"Devbox {devbox_id} has ended; create a new one.", code="devbox_ended")
        postpone_end(tx, row.id, until_ms=call.now_ms + lifetime_ms(row))

    await write_as(services, call.caller, extend)


async def shut_down_devbox(services: Services, call: Call, devbox_id: str, *, force: bool) -> DevboxRow:
    """End the devbox: the view says ``shutdown`` at once, its host follows. Ended ones stay as they are.

    Raises NotFoundError, and ConflictError while a snapshot of it is being taken, unless ``force`` gives that up.
    """

    def shut_down(tx: Connection) -> DevboxRow:
        row = find_own_locked(tx, call, devbox_id)
        if not force and row.end_time_ms is None and is_in_progress(tx, row.id):
            message = f"A snapshot of devbox {devbox_id} is being taken; wait for it, or give it up with ?force=true."
            raise ConflictError(message, code="snapshot_in_progress")
        step = end_by_request(row, ShutdownReason.API_SHUTDOWN, call.now_ms)
        return row if step is None else take_step(tx, step)

    return tell(services, await write_as(services, call.caller, shut_down))


async def suspend_devbox(services: Services, call: Call, devbox_id: str) -> DevboxRow:
    """Stop everything in the devbox and keep its disk. It is ``suspending`` until its host has done so.

    Raises NotFoundError, and InvalidValueError unless it runs.
    """
    return await _take_own_step(services, call, devbox_id, suspend_by_request, "only a running devbox can be suspended")


async def resume_devbox(services: Services, call: Call, devbox_id: str) -> DevboxRow:
    """Start a suspended devbox again, under its policy as it is now.

    Raises NotFoundError, and InvalidValueError unless it is suspended.
    """
    return await _take_own_step(services, call, devbox_id, resume_by_request, "only a suspended devbox can be resumed")


async def _take_own_step(
    services: Services,
    call: Call,
    devbox_id: str,
    decide: Callable[[DevboxRow, int], Step | None],
    rule: str,
) -> DevboxRow:
    def take(tx: Connection) -> DevboxRow:
        row = find_own_locked(tx, call, devbox_id)
        step = decide(row, call.now_ms)
        if claim(tx, call.request, devbox_id, call.now_ms) is not None:
            return row  # the same call again: what it asked for is on its way, or over already
        if step is None:
            message = f"Devbox {devbox_id} is {DevboxStatus(row.status)}; {rule}."
            raise InvalidValueError(message, code="wrong_status")
        return take_step(tx, step)

    return tell(services, await write_as(services, call.caller, take))


def take_step(tx: Connection, step: Step) -> DevboxRow:
    """Store the step; the row as it is stored."""
    row = replace(step.row, seq=take_numbers(tx).seq) if step.is_news else step.row
    save_devbox(tx, row)
    return row


def tell(services: Services, row: DevboxRow) -> DevboxRow:
    """Wake the devbox's host and whoever waits for the devbox; ``row``."""
    services.wakeups.notify(Topic(Subject.DESIRED_STATE, row.host_id), Topic(Subject.DEVBOX, row.id))
    return row


def devbox_not_found(devbox_id: str) -> NotFoundError:
    """The refusal for ids that name no devbox of the caller's."""
    shown = devbox_id if is_id(IdPrefix.DEVBOX, devbox_id) else repr(devbox_id[:80])
    return NotFoundError(f"Devbox {shown} not found.", code="devbox_not_found")


def find_own(tx: Connection, call: Call, devbox_id: str) -> DevboxRow:
    """The caller's devbox. Raises NotFoundError."""
    row = find_devbox(tx, call.account_id, devbox_id) if is_id(IdPrefix.DEVBOX, devbox_id) else None
    if row is None:
        raise devbox_not_found(devbox_id)
    return row


def find_own_locked(tx: Connection, call: Call, devbox_id: str) -> DevboxRow:
    """Like :func:`find_own`; nobody else changes the devbox before the transaction ends. Raises NotFoundError."""
    row = find_devbox_locked(tx, call.account_id, devbox_id) if is_id(IdPrefix.DEVBOX, devbox_id) else None
    if row is None:
        raise devbox_not_found(devbox_id)
    return row
