"""The flow log: what was decided, newest last."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    union_all,
    update,
)

from outgate.store.blueprint_tables import blueprints
from outgate.store.flow_tables import flow_feeds, flows
from outgate.store.tables import devboxes


@dataclass(frozen=True, slots=True)
class FlowRow:
    """One decision, or one finished flow (``bytes_*`` and ``duration_ms`` set); or ``count`` of them."""

    number: int
    devbox_id: str
    policy_id: str
    revision: int
    time_ms: int
    began_ms: int
    count: int
    verdict: str
    reason: str
    point: str
    rule: str
    sentence: str
    name: str
    address: str
    port: int
    protocol: str
    bytes_out: int | None
    bytes_in: int | None
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Which records a reader wants; None means any. Times are Unix milliseconds, ``name`` is a normal host name."""

    devbox_id: str | None = None
    policy_id: str | None = None
    verdict: str | None = None
    name: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


_DISORDER_MS: Final = 60_000
"""How much earlier than its predecessors a record's time may be, unless its host was cut off."""
_LATE_MAX: Final = 20_000
"""Records that come late at once, when hosts were cut off; the agent of one keeps some 8,000. A millisecond or two."""


@dataclass(frozen=True, slots=True)
class FlowGroup:
    """Decisions of one kind on one place, added up. ``devboxes`` counts those that asked."""

    name: str
    address: str
    port: int
    protocol: str
    point: str
    verdict: str
    count: int
    devboxes: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class FlowSum:
    """Decisions of one devbox on one place within one of several equal stretches of time, added up.

    ``host`` is a name or, where none is known, an address. ``step`` counts the stretches from 0; ``records`` is out
    of how many records ``count`` was added up.
    """

    devbox_id: str
    host: str
    verdict: str
    step: int
    count: int
    records: int


@dataclass(frozen=True, slots=True)
class DevboxGroup:
    """What one devbox did of one kind in one place, added up. ``is_finished``: records of finished flows."""

    devbox_id: str
    name: str
    address: str
    port: int
    protocol: str
    point: str
    verdict: str
    reason: str
    is_finished: bool
    count: int
    first_ms: int
    last_ms: int


_FIELDS: Final = tuple(FlowRow.__dataclass_fields__)
_ROW: Final = select(*(flows.c[name] for name in _FIELDS))
_INSERT: Final = insert(flows)
_FEED: Final = select(flow_feeds.c.boot_id, flow_feeds.c.number).where(flow_feeds.c.host_id == bindparam("host"))
_ADVANCE: Final = (
    update(flow_feeds)
    .where(flow_feeds.c.host_id == bindparam("host"))
    .values(boot_id=bindparam("boot"), number=bindparam("last"), dropped=flow_feeds.c.dropped + bindparam("lost"))
)
_ACCOUNTS: Final = union_all(
    *(
        select(table.c.id, table.c.account_id).where(
            table.c.host_id == bindparam("host"), table.c.id.in_(bindparam("ids", expanding=True))
        )
        for table in (devboxes, blueprints)
    )
)
_LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_KEY: Final = 0x6F75_7467_666C_6F77
"""Nobody else's: "outgflow"."""
_LAST: Final = select(func.max(flows.c.number))
_OLDEST: Final = (
    select(flows.c.number)
    .where(or_(flows.c.time_ms < bindparam("before_ms"), flows.c.number <= bindparam("up_to")))
    .where(flows.c.number.in_(select(flows.c.number).order_by(flows.c.number).limit(bindparam("most"))))
)


def advance_feed(connection: Connection, host_id: str, boot_id: str, number: int, *, dropped: int) -> bool:
    """Note that batch ``number`` of this life of the host's agent is in; False when it already was.

    From then on no other transaction takes a batch in before this one ends: so records come into sight in the order
    of their numbers, and who has read up to one of them has missed none.
    """
    if connection.dialect.name == "postgresql":  # on SQLite there is one writer anyway
        connection.execute(_LOCK, {"key": _LOCK_KEY})
    known = connection.execute(_FEED, {"host": host_id}).one_or_none()
    if known is None:
        values = {"host_id": host_id, "boot_id": boot_id, "number": number, "dropped": dropped}
        connection.execute(insert(flow_feeds), values)
        return True
    if known.boot_id == boot_id and known.number >= number:
        return False
    connection.execute(_ADVANCE, {"host": host_id, "boot": boot_id, "last": number, "lost": dropped})
    return True


def find_accounts(connection: Connection, host_id: str, devbox_ids: Collection[str]) -> Mapping[str, str]:
    """The accounts of those of ``devbox_ids`` (builds have the ids of their blueprints) that are the host's."""
    rows = connection.execute(_ACCOUNTS, {"host": host_id, "ids": sorted(devbox_ids)})
    return {row.id: row.account_id for row in rows}


def insert_flows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store records; each has all columns but ``number``."""
    if rows:
        connection.execute(_INSERT, list(rows))


def list_flows(
    connection: Connection, account_id: str, wanted: FlowFilter, *, before: int | None, limit: int
) -> list[FlowRow]:
    """At most ``limit`` records, newest first, from before number ``before`` on."""
    query = _ROW.where(*_conditions(account_id, wanted)).order_by(flows.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(flows.c.number < before)
    return [FlowRow(*row) for row in connection.execute(query)]


def list_flows_after(
    connection: Connection, account_id: str, wanted: FlowFilter, *, after: int, limit: int
) -> list[FlowRow]:
    """At most ``limit`` records, oldest first, from after number ``after`` on."""
    query = _ROW.where(*_conditions(account_id, wanted), flows.c.number > after).order_by(flows.c.number).limit(limit)
    return [FlowRow(*row) for row in connection.execute(query)]


def group_decisions(connection: Connection, account_id: str, wanted: FlowFilter, *, limit: int) -> list[FlowGroup]:
    """The ``limit`` most frequent kinds of decision, without the records of finished flows, which repeat them."""
    kind = (flows.c.name, flows.c.address, flows.c.port, flows.c.protocol, flows.c.point, flows.c.verdict)
    count = func.sum(flows.c.count)
    query = (
        select(*kind, count, func.count(flows.c.devbox_id.distinct()), func.max(flows.c.time_ms))
        .where(*_conditions(account_id, wanted), flows.c.bytes_out.is_(None))
        .group_by(*kind)
        .order_by(count.desc(), *kind)
        .limit(limit)
    )
    return [
        FlowGroup(
            name=row.name,
            address=row.address,
            port=row.port,
            protocol=row.protocol,
            point=row.point,
            verdict=row.verdict,
            # PostgreSQL adds whole numbers up to decimals.
            count=int(row[6]),
            devboxes=row[7],
            time_ms=row[8],
        )
        for row in connection.execute(query)
    ]


def sum_decisions(
    connection: Connection, account_id: str, wanted: FlowFilter, *, begin_ms: int, step_ms: int, limit: int
) -> list[FlowSum]:
    """The newest ``limit`` records that fit, added up by devbox, place, verdict and stretch of ``step_ms``.

    Like :func:`group_decisions` without the records of finished flows.
    """
    host = case((flows.c.name != "", flows.c.name), else_=flows.c.address).label("host")
    step = ((flows.c.time_ms - begin_ms) // step_ms).label("step")
    newest = (
        select(flows.c.devbox_id, host, flows.c.verdict, step, flows.c.count)
        .where(*_conditions(account_id, wanted), flows.c.bytes_out.is_(None))
        .order_by(flows.c.number.desc())
        .limit(limit)
        .subquery()
    )
    kind = (newest.c.devbox_id, newest.c.host, newest.c.verdict, newest.c.step)
    query = select(*kind, func.sum(newest.c.count), func.count()).group_by(*kind)
    return [
        # PostgreSQL adds whole numbers up to decimals.
        FlowSum(row.devbox_id, row.host, row.verdict, int(row.step), int(row[4]), row[5])
        for row in connection.execute(query)
    ]


def group_by_devbox(
    connection: Connection, account_id: str, wanted: FlowFilter, *, devbox_ids: Collection[str], limit: int
) -> list[DevboxGroup]:
    """The ``limit`` most frequent kinds of record of each devbox; of all devboxes when ``devbox_ids`` is empty."""
    columns = flows.c
    is_finished = columns.bytes_out.is_not(None)
    kind = (
        columns.devbox_id,
        columns.name,
        columns.address,
        columns.port,
        columns.protocol,
        columns.point,
        columns.verdict,
        columns.reason,
        is_finished.label("is_finished"),
    )
    count = func.sum(columns.count)
    query = (
        select(*kind, count, func.min(columns.began_ms), func.max(columns.time_ms))
        .where(*_conditions(account_id, wanted))
        .group_by(*kind[:-1], is_finished)
        .order_by(count.desc(), *kind[:-1], is_finished)
        .limit(limit)
    )
    if devbox_ids:
        query = query.where(columns.devbox_id.in_(sorted(devbox_ids)))
    # PostgreSQL adds whole numbers up to decimals.
    return [
        DevboxGroup(
            devbox_id=row.devbox_id,
            name=row.name,
            address=row.address,
            port=row.port,
            protocol=row.protocol,
            point=row.point,
            verdict=row.verdict,
            reason=row.reason,
            is_finished=bool(row.is_finished),
            count=int(row[9]),
            first_ms=row[10],
            last_ms=row[11],
        )
        for row in connection.execute(query)
    ]


def find_last_number(connection: Connection) -> int:
    """The number of the newest record of all, 0 when there is none."""
    last: int | None = connection.execute(_LAST).scalar_one()
    return last or 0


def delete_old_flows(connection: Connection, *, before_ms: int, up_to: int, limit: int) -> int:
    """Forget of the oldest ``limit`` records those from before ``before_ms`` and those up to ``up_to``; how many."""
    numbers = [
        row.number for row in connection.execute(_OLDEST, {"before_ms": before_ms, "up_to": up_to, "most": limit})
    ]
    if numbers:
        connection.execute(delete(flows).where(flows.c.number.in_(numbers)))
    return len(numbers)


def _conditions(account_id: str, wanted: FlowFilter) -> list[ColumnElement[bool]]:
    conditions = [flows.c.account_id == account_id]
    # What narrows most comes first, and its index alone is to be used: SQLite would prefer that of the verdict, and
    # walk all the denials of an account to find those of one devbox.
    for column, value in (
        (flows.c.devbox_id, wanted.devbox_id),
        (flows.c.name, wanted.name),
        (flows.c.policy_id, wanted.policy_id),
        (flows.c.verdict, wanted.verdict),
    ):
        if value is not None:
            conditions.append((column if len(conditions) == 1 else column.concat("")) == value)
    if wanted.since_ms is not None:
        conditions += [flows.c.time_ms >= wanted.since_ms, flows.c.number >= _first_number(wanted.since_ms)]
    if wanted.until_ms is not None:
        newest = _last_number(wanted.since_ms, wanted.until_ms)
        conditions += [flows.c.time_ms < wanted.until_ms, flows.c.number <= newest]
    return conditions


def _first_number(since_ms: int) -> ScalarSelect[int]:
    """Where the log reaches ``since_ms``, so that what is older need not be looked at; nothing when it never does."""
    earliest = select(flows.c.number).where(flows.c.time_ms >= since_ms - _DISORDER_MS)
    # The very first may have come late, with a number beyond those of records that are to be found.
    among = earliest.order_by(flows.c.time_ms, flows.c.number).limit(_LATE_MAX).subquery()
    return select(func.min(among.c.number)).scalar_subquery()


def _last_number(since_ms: int | None, until_ms: int) -> ScalarSelect[int]:
    """The last number from before ``until_ms``, so that what is newer need not be looked at, account by account."""
    before = flows.c.time_ms < until_ms
    if since_ms is None:
        # From the end of the table to the first that is old enough: as long as what is skipped.
        return select(func.max(flows.c.number)).where(before).scalar_subquery()
    # The sum keeps SQLite from doing the same here: the index of times is as long as what is wanted.
    return select(func.max(flows.c.number + 0)).where(before, flows.c.time_ms >= since_ms).scalar_subquery()
