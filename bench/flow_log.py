"""Rows about a long flow log: a million records in SQLite, by the store's own code, and the pages that the API reads."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Connection, select

from bench.report import Row
from outgate.store.database import Database
from outgate.store.flow_tables import flows
from outgate.store.flows import FlowFilter, FlowRow, insert_flows, list_flows, list_flows_after
from outgate.store.migrate import load_migrations, migrate

RECORDS = 1_000_000
BATCH = 5000
PAGE = 100
READS = 60
ACCOUNT, OTHERS = "acc_1", ("acc_2", "acc_3")
DEVBOXES, NAMES = 200, 500
RARE_EVERY = RECORDS // 20
BEGAN_MS = 1_700_000_000_000
GAP_MS = 86
"""A million of them in a day."""
OWED_TIMES = 20
"""What a filter may cost over the primary key: a page that walks the log takes some hundred times as long."""

UNTIL = "until noon"
"""Nothing is owed: what is newer is skipped one by one, as long as no beginning is given."""

Page = Callable[[Connection], list[FlowRow]]


def _record(number: int, chance: random.Random) -> dict[str, Any]:
    """The ``number``-th record: of three accounts, most of it allowed, some of it of rare devboxes and names."""
    is_rare = number % RARE_EVERY == RARE_EVERY // 2
    account = ACCOUNT if is_rare or chance.random() < 0.6 else chance.choice(OTHERS)
    place = int(NAMES * chance.random() ** 3)
    is_denied = chance.random() < 0.05
    is_finished = not is_denied and chance.random() < 0.4
    time_ms = BEGAN_MS + number * GAP_MS
    return {
        "account_id": account,
        "devbox_id": "dbx_rare" if is_rare else f"dbx_{account}_{chance.randrange(DEVBOXES)}",
        "policy_id": f"npol_{account}_{place % 10}",
        "revision": 1,
        "time_ms": time_ms,
        "began_ms": time_ms,
        "count": 1,
        "verdict": "deny" if is_denied else "allow",
        "reason": "name_not_allowed" if is_denied else "hostname",
        "point": chance.choice(("dns", "relay", "kernel")),
        "rule": "allowed_hostnames[0] *.example",
        "sentence": "allowed_hostnames[0] *.example of policy 'bench' (npol_1) covers it.",
        "name": "rare.example" if is_rare else f"h{place}.example",
        "address": f"45.45.{place % 256}.1",
        "port": 443,
        "protocol": "tls",
        "bytes_out": 1200 if is_finished else None,
        "bytes_in": 34_000 if is_finished else None,
        "duration_ms": 150 if is_finished else None,
    }


def _fill(database: Database) -> float:
    """Store all records; how many a second."""
    chance = random.Random(5)
    took_s = 0.0
    for first in range(0, RECORDS, BATCH):
        rows = [_record(number, chance) for number in range(first, first + BATCH)]
        begin = time.perf_counter()
        database.write_now(lambda tx, rows=rows: insert_flows(tx, rows))
        took_s += time.perf_counter() - begin
    return RECORDS / took_s


def _newest(wanted: FlowFilter, *, before: int | None = None) -> Page:
    return lambda tx: list_flows(tx, ACCOUNT, wanted, before=before, limit=PAGE + 1)


def _pages() -> Iterator[tuple[str, Page]]:
    """What is read, and how it is called."""
    hour_ms = 3_600_000
    end_ms = BEGAN_MS + RECORDS * GAP_MS
    busy = f"dbx_{ACCOUNT}_7"
    yield "of the account", _newest(FlowFilter())
    yield "of the account, in the middle", _newest(FlowFilter(), before=RECORDS // 2)
    yield "of a devbox", _newest(FlowFilter(devbox_id=busy))
    yield "of a devbox with 20 records", _newest(FlowFilter(devbox_id="dbx_rare"))
    yield "of a devbox, denied", _newest(FlowFilter(devbox_id=busy, verdict="deny"))
    yield "of a policy", _newest(FlowFilter(policy_id=f"npol_{ACCOUNT}_3"))
    yield "denied", _newest(FlowFilter(verdict="deny"))
    yield "of a name", _newest(FlowFilter(name="h3.example"))
    yield "of a name with 20 records", _newest(FlowFilter(name="rare.example"))
    yield "of a name without any", _newest(FlowFilter(name="never.example"))
    yield "since an hour ago", _newest(FlowFilter(since_ms=end_ms - hour_ms))
    yield (
        "denied, of a name, since noon",
        _newest(FlowFilter(verdict="deny", name="h3.example", since_ms=end_ms - 12 * hour_ms)),
    )
    yield "of an hour at noon", _newest(FlowFilter(since_ms=end_ms - 13 * hour_ms, until_ms=end_ms - 12 * hour_ms))
    yield UNTIL, _newest(FlowFilter(until_ms=end_ms - 12 * hour_ms))
    yield "after a number", lambda tx: list_flows_after(tx, ACCOUNT, FlowFilter(), after=RECORDS // 2, limit=PAGE)


def _by_primary_key(tx: Connection) -> list[FlowRow]:
    """The page that every other is held against: no filter, no account, nothing counted."""
    fields = (flows.c[name] for name in FlowRow.__dataclass_fields__)
    return [FlowRow(*row) for row in tx.execute(select(*fields).order_by(flows.c.number.desc()).limit(PAGE + 1))]


def _read_ms(database: Database, page: Page) -> float:
    """Median of READS reads of one page."""
    seen = []
    for _ in range(READS):
        begin = time.perf_counter()
        database.read_now(page)
        seen.append((time.perf_counter() - begin) * 1e3)
    return median(seen)


def long_log(folder: Path) -> list[Row]:
    """Fill a log and read it."""
    database = Database.open(f"sqlite:///{folder / 'flows.sqlite3'}")
    try:
        migrate(database.writer, load_migrations())
        rate = _fill(database)
        plain_ms = _read_ms(database, _by_primary_key)
        rows = [
            Row(
                "a million records: stored a second",
                rate,
                None,
                at_least=True,
                unit="/s",
                detail=f"SQLite, {BATCH} in a transaction, on disk; a page by primary key takes {plain_ms:.2f} ms",
            )
        ]
        for name, page in _pages():
            found = len(database.read_now(page))
            took_ms = _read_ms(database, page)
            rows.append(
                Row(
                    f"a million records: page {name}",
                    took_ms / plain_ms,
                    None if name == UNTIL else OWED_TIMES,
                    at_least=False,
                    unit="x",
                    detail=f"{took_ms:.2f} ms for {found} records; by primary key {plain_ms:.2f} ms",
                )
            )
    finally:
        database.close()
    return rows
