"""The flow log, on both kinds of store."""

from typing import Any

from sqlalchemy import insert

from outgate.store.database import Database
from outgate.store.flows import (
    FlowFilter,
    advance_feed,
    delete_old_flows,
    find_last_number,
    insert_flows,
    list_flows,
    list_flows_after,
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
