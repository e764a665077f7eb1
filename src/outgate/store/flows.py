"""The flow log: what was decided, newest last."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
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
"""How much earlier than its predecessors a record's time may be; later ones (a host was cut off) do not matter."""


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
_LAST: Final = select(func.max(flows.c.number))
_OLDEST: Final = (
    select(flows.c.number)
    .where(or_(flows.c.time_ms < bindparam("before_ms"), flows.c.number <= bindparam("up_to")))
    .where(flows.c.number.in_(select(flows.c.number).order_by(flows.c.number).limit(bindparam("most"))))
)


def advance_feed(connection: Connection, host_id: str, boot_id: str, number: int, *, dropped: int) -> bool:
    """Note that batch ``number`` of this life of the host's agent is in; False when it already was."""
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
    for column, value in (
        (flows.c.devbox_id, wanted.devbox_id),
        (flows.c.policy_id, wanted.policy_id),
        (flows.c.verdict, wanted.verdict),
        (flows.c.name, wanted.name),
    ):
        if value is not None:
            conditions.append(column == value)
    if wanted.since_ms is not None:
        conditions += [flows.c.time_ms >= wanted.since_ms, flows.c.number >= _first_number(wanted.since_ms)]
    if wanted.until_ms is not None:
        conditions.append(flows.c.time_ms < wanted.until_ms)
    return conditions


def _first_number(since_ms: int) -> ScalarSelect[int]:
    """Where the log reaches ``since_ms``, so that what is older need not be looked at; nothing when it never does."""
    earliest = select(flows.c.number).where(flows.c.time_ms >= since_ms - _DISORDER_MS)
    return earliest.order_by(flows.c.time_ms, flows.c.number).limit(1).scalar_subquery()
