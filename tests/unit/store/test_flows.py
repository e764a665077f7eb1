"""The flow log, on both kinds of store."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text

from outgate.store.database import Database
from outgate.store.flows import (
    FlowFilter,
    advance_feed,
    delete_old_flows,
    find_last_number,
    insert_flows,
    list_flows,
    list_flows_after,
    sum_decisions,
)
from outgate.store.tables import hosts


def values(time_ms: int, **other: Any) -> dict[str, Any]:
    return {
        "account_id": "acc_1",
        "devbox_id": "dbx_1",
        "policy_id": "npol_1",
        "revision": 1,
        "time_ms": time_ms,
        "began_ms": time_ms,
        "count": 1,
        "verdict": "allow",
        "reason": "hostname",
        "point": "dns",
        "rule": "",
        "sentence": "",
        "name": "",
        "address": "",
        "port": 0,
        "protocol": "",
        "bytes_out": None,
        "bytes_in": None,
        "duration_ms": None,
    } | other


def keep(database: Database, *rows: dict[str, Any]) -> None:
    database.write_now(lambda tx: insert_flows(tx, rows))


def times(database: Database, wanted: FlowFilter, *, account_id: str = "acc_1", limit: int = 100) -> list[int]:
    found = database.read_now(lambda tx: list_flows(tx, account_id, wanted, before=None, limit=limit))
    return [row.time_ms for row in found]


def test_records_come_back_newest_first_and_by_pages(database: Database) -> None:
    keep(database, *(values(n) for n in range(5)))
    first = database.read_now(lambda tx: list_flows(tx, "acc_1", FlowFilter(), before=None, limit=2))
    assert [row.time_ms for row in first] == [4, 3]
    rest = database.read_now(lambda tx: list_flows(tx, "acc_1", FlowFilter(), before=first[-1].number, limit=9))
    assert [row.time_ms for row in rest] == [2, 1, 0]
    after = database.read_now(lambda tx: list_flows_after(tx, "acc_1", FlowFilter(), after=rest[0].number, limit=9))
    assert [row.time_ms for row in after] == [3, 4]


def test_filters_and_accounts(database: Database) -> None:
    keep(
        database,
        values(1, verdict="deny"),
        values(2, devbox_id="dbx_2"),
        values(3, policy_id="npol_2"),
        values(4, name="x.org"),
        values(5, account_id="acc_2"),
    )
    assert times(database, FlowFilter(verdict="deny")) == [1]
    assert times(database, FlowFilter(devbox_id="dbx_2")) == [2]
    assert times(database, FlowFilter(policy_id="npol_2")) == [3]
    assert times(database, FlowFilter(name="x.org")) == [4]
    assert times(database, FlowFilter(since_ms=2, until_ms=4)) == [3, 2]
    assert times(database, FlowFilter(), account_id="acc_2") == [5]


def test_any_mix_of_filters_finds_what_fits_all_of_them_also_what_came_late(database: Database) -> None:
    kept = [
        values(time_ms, devbox_id=devbox_id, verdict=verdict, name=name, policy_id=policy_id)
        # The second half came late: its host could not reach the api.
        for time_ms, (devbox_id, verdict, name, policy_id) in enumerate(
            product(("dbx_1", "dbx_2"), ("allow", "deny"), ("x.org", "y.org"), ("npol_1", "npol_2"))
        )
    ]
    kept = [*kept[8:], *kept[:8]]
    keep(database, *kept)
    columns = {"devbox_id": "dbx_1", "verdict": "deny", "name": "x.org", "policy_id": "npol_2"}
    for chosen, since_ms, until_ms in product(product((False, True), repeat=4), (None, 0, 3, 12), (None, 0, 3, 12, 99)):
        wanted = {name: value for (name, value), is_in in zip(columns.items(), chosen, strict=True) if is_in}
        fitting = [
            row["time_ms"]
            for row in reversed(kept)
            if all(row[name] == value for name, value in wanted.items())
            and (since_ms or 0) <= row["time_ms"] < (100 if until_ms is None else until_ms)
        ]
        assert times(database, FlowFilter(**wanted, since_ms=since_ms, until_ms=until_ms)) == fitting


def test_a_batch_counts_once(database: Database) -> None:
    host = {"id": "host_1", "name": "one", "lookup": "l", "digest": b"d", "enforced": 0, "ready": True}
    database.write_now(lambda tx: tx.execute(insert(hosts), host | {"warnings": "[]", "seen_time_ms": 0}))

    def advance(boot_id: str, number: int) -> bool:
        return database.write_now(lambda tx: advance_feed(tx, "host_1", boot_id, number, dropped=0))

    taken = [advance("one", 1), advance("one", 1), advance("one", 3), advance("one", 2), advance("two", 1)]
    assert taken == [True, False, True, False, True]


def test_the_oldest_are_forgotten_by_age_and_by_number_and_no_number_comes_again(database: Database) -> None:
    keep(database, *(values(n) for n in range(10)))
    last = database.read_now(find_last_number)
    assert database.write_now(lambda tx: delete_old_flows(tx, before_ms=2, up_to=0, limit=100)) == 2
    assert database.write_now(lambda tx: delete_old_flows(tx, before_ms=0, up_to=last - 3, limit=4)) == 4
    assert database.write_now(lambda tx: delete_old_flows(tx, before_ms=0, up_to=last - 3, limit=4)) == 1
    assert times(database, FlowFilter()) == [9, 8, 7]
    assert database.write_now(lambda tx: delete_old_flows(tx, before_ms=100, up_to=0, limit=100)) == 3
    keep(database, values(11))
    assert database.read_now(find_last_number) == last + 1


def test_decisions_are_added_up_by_place_and_time(database: Database) -> None:
    keep(
        database,
        values(99, name="x.org"),
        values(100, name="x.org", address="192.0.2.1", count=2),
        values(109, name="x.org", count=3),
        values(110, name="x.org", verdict="deny", count=4),
        values(119, address="192.0.2.1", devbox_id="dbx_2"),
        values(119, name="x.org", bytes_out=1, bytes_in=1, duration_ms=1, count=50),
        values(119, name="x.org", account_id="acc_2", count=50),
        values(120, name="x.org"),
    )
    wanted = FlowFilter(since_ms=100, until_ms=120)

    def add_up(limit: int) -> set[tuple[str, str, str, int, int, int]]:
        found = database.read_now(lambda tx: sum_decisions(tx, "acc_1", wanted, begin_ms=100, step_ms=10, limit=limit))
        return {(one.devbox_id, one.host, one.verdict, one.step, one.count, one.records) for one in found}

    assert add_up(100) == {
        ("dbx_1", "x.org", "allow", 0, 5, 2),
        ("dbx_1", "x.org", "deny", 1, 4, 1),
        ("dbx_2", "192.0.2.1", "allow", 1, 1, 1),
    }
    assert add_up(2) == {("dbx_1", "x.org", "deny", 1, 4, 1), ("dbx_2", "192.0.2.1", "allow", 1, 1, 1)}, "the newest"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_records_come_into_sight_in_the_order_of_their_numbers(database_url: str, database: Database) -> None:
    """Two api processes take batches in: who has read the second one's must not find the first one's behind it."""
    host = {"lookup": "l", "digest": b"d", "enforced": 0, "ready": True, "warnings": "[]", "seen_time_ms": 0}
    for number in (1, 2):
        row = host | {"id": f"host_{number}", "name": f"host {number}"}
        database.write_now(lambda tx, row=row: tx.execute(insert(hosts), row))  # type: ignore[misc] # as it is now
    is_in, may_end = threading.Event(), threading.Event()

    def take(tx: Connection, host_number: int) -> None:
        advance_feed(tx, f"host_{host_number}", "boot", 1, dropped=0)
        insert_flows(tx, [values(host_number)])
        if host_number == 1:
            is_in.set()
            may_end.wait(30)

    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    with Database.open(database_url) as other, ThreadPoolExecutor(2) as threads:
        first = threads.submit(database.write_now, lambda tx: take(tx, 1))
        assert is_in.wait(30)
        second = threads.submit(other.write_now, lambda tx: take(tx, 2))
        deadline_s = time.monotonic() + 30
        while not other.read_now(lambda tx: tx.execute(waiting).scalar_one()) and not second.done():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        is_second_done = second.done()
        may_end.set()
        first.result(30)
        second.result(30)
    assert not is_second_done
    assert times(database, FlowFilter()) == [2, 1]
