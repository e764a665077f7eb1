"""The flow log: taken in from hosts, read by accounts, forgotten when it is old or long."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection

from outgate.clock import monotonic_s
from outgate.control.callers import Caller
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.control.wakeups import Subject, Topic
from outgate.model.desired import FlowBatch, FlowRecord
from outgate.store.flow_tables import flows
from outgate.store.flows import (
    FlowFilter,
    FlowRow,
    advance_feed,
    delete_old_flows,
    find_accounts,
    find_last_number,
    insert_flows,
    list_flows,
    list_flows_after,
)
from outgate.store.hosts import HostRow

FOLLOWED_PAGE: Final = 200
"""Records that one look of a follower brings; a busy account is followed in several."""
LOOK_EVERY_S: Final = 1.0
"""How soon records are seen that another api process took in."""
FOLLOW_S_MAX: Final = 3600.0
"""Clients connect anew; a connection that nobody reads any more does not stay for ever."""
_FORGOTTEN_BATCH: Final = 2000
"""Some 20 ms of the writer, so that no update waits for long behind it."""
_DAY_MS: Final = 86_400_000
_LENGTHS: Final[Mapping[str, int]] = {
    "policy_id": 64,
    "verdict": 16,
    "reason": 64,
    "point": 16,
    "rule": 1024,
    "sentence": 2048,
    "name": 1024,
    "address": 64,
    "protocol": 16,
}


@dataclass(frozen=True, slots=True)
class FlowPage:
    """Records, newest first."""

    flows: tuple[FlowRow, ...]
    has_more: bool


async def take_flows(services: Services, host: HostRow, batch: FlowBatch) -> None:
    """Keep what a host's devboxes did; once, however often it is sent. What is not the host's is dropped."""

    def take(tx: Connection) -> list[dict[str, Any]] | None:
        if not advance_feed(tx, host.id, batch.boot_id[:64], batch.number, dropped=batch.dropped):
            return None
        accounts = find_accounts(tx, host.id, {record.devbox_id for record in batch.records})
        rows = [_row(record, accounts[record.devbox_id]) for record in batch.records if record.devbox_id in accounts]
        insert_flows(tx, rows)
        return rows

    rows = await services.database.write(take)
    if rows is None:
        return
    services.metrics.records_stored.inc(len(rows))
    services.metrics.records_foreign.inc(len(batch.records) - len(rows))
    services.telemetry.decided(rows)
    concerned = {row["account_id"] for row in rows}
    services.wakeups.notify(*(Topic(Subject.FLOWS, account_id) for account_id in concerned))


async def page_flows(
    services: Services, caller: Caller, wanted: FlowFilter, *, before: int | None, limit: int
) -> FlowPage:
    """At most ``limit`` of the account's records, newest first, from before number ``before`` on."""

    def read(tx: Connection) -> FlowPage:
        rows = list_flows(tx, caller.account_id, wanted, before=before, limit=limit + 1)
        return FlowPage(tuple(rows[:limit]), len(rows) > limit)

    return await read_as(services, caller, read)


async def follow_flows(
    services: Services, caller: Caller, wanted: FlowFilter, *, after: int | None
) -> AsyncGenerator[tuple[FlowRow, ...], None]:
    """What comes after number ``after`` (from now on when None), as it does, for an hour; at first maybe nothing.

    Raises UnauthorizedError when the key was revoked, TooManyWaitsError, and StoppingError when the server stops.
    """
    ends_s = monotonic_s() + FOLLOW_S_MAX
    topic = Topic(Subject.FLOWS, caller.account_id)
    with (
        services.waits.hold(caller.account_id, services.settings.waits_max),
        services.wakeups.watch(topic) as watch,
    ):
        if after is None:
            after = await read_as(services, caller, find_last_number)
            yield ()
        while monotonic_s() < ends_s:
            rows, after = await _read_after(services, caller, wanted, after)
            if rows:
                yield rows
            if len(rows) < FOLLOWED_PAGE:
                await watch.wait(LOOK_EVERY_S)


async def _read_after(
    services: Services, caller: Caller, wanted: FlowFilter, after: int
) -> tuple[tuple[FlowRow, ...], int]:
    """The next records, and the number up to which there are no others: what does not fit is looked at once."""

    def read(tx: Connection) -> tuple[tuple[FlowRow, ...], int]:
        rows = tuple(list_flows_after(tx, caller.account_id, wanted, after=after, limit=FOLLOWED_PAGE))
        is_all = len(rows) < FOLLOWED_PAGE
        return rows, max(after, find_last_number(tx)) if is_all else rows[-1].number

    return await read_as(services, caller, read)


async def forget_old_flows(services: Services, now_ms: int) -> int:
    """Forget one batch of what is older than the settings keep, or more than they keep; how many they were."""
    settings = services.settings

    def forget(tx: Connection) -> int:
        return delete_old_flows(
            tx,
            before_ms=now_ms - settings.flow_days_max * _DAY_MS,
            up_to=find_last_number(tx) - settings.flows_max,
            limit=_FORGOTTEN_BATCH,
        )

    return await services.database.write(forget)


def _row(record: FlowRecord, account_id: str) -> dict[str, Any]:
    """The columns of a record. Its texts come from a host, and in part from inside a devbox: none is too long."""
    values: dict[str, Any] = {column.name: getattr(record, column.name, None) for column in flows.c}
    for name, length in _LENGTHS.items():
        values[name] = str(values[name]).replace("\0", "\N{REPLACEMENT CHARACTER}")[:length]
    del values["number"]
    return values | {
        "account_id": account_id,
        "began_ms": record.time_ms if record.began_ms is None else record.began_ms,
    }
