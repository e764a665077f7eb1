"""Devboxes: get, list, and wait for a status."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from outgate.clock import monotonic_s
from outgate.control.callers import Caller
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devboxes import devbox_not_found
from outgate.control.errors import WaitTimeoutError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.control.wakeups import Subject, Topic
from outgate.store.devboxes import DevboxFilter, DevboxRow, count_listed, find_devbox, list_devboxes

STARTING: Final = frozenset({DevboxStatus.QUEUED, DevboxStatus.PROVISIONING, DevboxStatus.INITIALIZING})


@dataclass(frozen=True, slots=True)
class DevboxPage:
    """One page of a list. ``total_count`` counts all pages, or is None when it was not asked for."""

    devboxes: tuple[DevboxRow, ...]
    has_more: bool
    total_count: int | None


async def get_devbox(services: Services, caller: Caller, devbox_id: str) -> DevboxRow:
    """The caller's devbox. Raises NotFoundError."""
    if not is_id(IdPrefix.DEVBOX, devbox_id):
        raise devbox_not_found(devbox_id)
    row = await read_as(services, caller, lambda tx: find_devbox(tx, caller.account_id, devbox_id))
    if row is None:
        raise devbox_not_found(devbox_id)
    return row


async def page_devboxes(
    services: Services, caller: Caller, wanted: DevboxFilter, *, limit: int, count_total: bool
) -> DevboxPage:
    """At most ``limit`` of the caller's devboxes, newest first, from after ``wanted.before`` on."""

    def read(tx: Connection) -> DevboxPage:
        rows = list_devboxes(tx, caller.account_id, wanted, limit=limit + 1)
        total = count_listed(tx, caller.account_id, wanted) if count_total else None
        return DevboxPage(tuple(rows[:limit]), len(rows) > limit, total)

    return await read_as(services, caller, read)


async def await_devbox(
    services: Services, caller: Caller, devbox_id: str, statuses: Collection[DevboxStatus], timeout_s: float
) -> DevboxRow:
    """The devbox as soon as its status is one of ``statuses``.

    Raises NotFoundError, and WaitTimeoutError after the whole of ``timeout_s``: clients do not pause between
    two waits, so an early answer would make them ask in a tight loop.
    """
    row = await _wait(services, caller, devbox_id, statuses, timeout_s)
    if row.status not in statuses:
        wanted = ", ".join(sorted(statuses))
        raise WaitTimeoutError(f"Devbox {devbox_id} is {row.status} after {timeout_s:g} s; waited for {wanted}.")
    return row


async def await_started(services: Services, caller: Caller, devbox: DevboxRow, timeout_s: float) -> DevboxRow:
    """The devbox when it has started or failed, or as it is after ``timeout_s``.

    Raises WaitTimeoutError when it is still queued then: clients take that status for an end.
    """
    settled = frozenset(DevboxStatus) - STARTING
    row = await _wait(services, caller, devbox.id, settled, timeout_s)
    if row.status == DevboxStatus.QUEUED:
        raise WaitTimeoutError(f"Devbox {devbox.id} is still queued after {timeout_s:g} s; ask again.")
    return row


async def _wait(
    services: Services, caller: Caller, devbox_id: str, statuses: Collection[DevboxStatus], timeout_s: float
) -> DevboxRow:
    deadline_s = monotonic_s() + timeout_s
    with (
        services.waits.hold(caller.account_id, services.settings.waits_max),
        services.wakeups.watch(Topic(Subject.DEVBOX, devbox_id)) as watch,
    ):
        while True:
            row = await get_devbox(services, caller, devbox_id)
            left_s = deadline_s - monotonic_s()
            if row.status in statuses or left_s <= 0:
                return row
            await watch.wait(min(left_s, services.poll_s))
