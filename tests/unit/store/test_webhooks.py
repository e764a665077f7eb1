"""Webhooks' news and their outbox, on both kinds of store."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, text, update

from outgate.control.accounts import create_account
from outgate.control.ids import IdMaker
from outgate.store.database import Database
from outgate.store.flows import advance_feed, insert_flows
from outgate.store.tables import hosts
from outgate.store.webhook_deliveries import (
    DeliveryRow,
    count_pending,
    end_pending,
    forget_old_deliveries,
    insert_deliveries,
    keep_newest,
    lease_delivery,
    list_deliveries,
    list_due_webhooks,
    release_webhook,
    settle_delivery,
)
from outgate.store.webhook_news import FlowNews, FlowSpan, find_first_flow, gather_flows
from outgate.store.webhook_tables import webhooks
from outgate.store.webhooks import (
    Looked,
    WebhookRow,
    advance_webhook,
    count_webhooks,
    find_settled_number,
    find_webhook,
    forget_deleted_webhooks,
    has_webhooks_under_other_keys,
    insert_webhook,
    list_looking,
)

SPAN = FlowSpan("acc_1", 0, 10**9)
NAMES = ("", "a.example", "b.example")
ADDRESSES = ("", "45.0.0.1", "45.0.0.2")


def flow(**other: Any) -> dict[str, Any]:
    return {
        "account_id": "acc_1",
        "devbox_id": "dbx_1",
        "policy_id": "npol_1",
        "revision": 1,
        "time_ms": 5,
        "began_ms": 5,
        "count": 1,
        "verdict": "deny",
        "reason": "no_rule",
        "point": "dns",
        "rule": "",
        "sentence": "",
        "name": "a.example",
        "address": "",
        "port": 0,
        "protocol": "",
        "bytes_out": None,
        "bytes_in": None,
        "duration_ms": None,
    } | other


def keep(database: Database, *rows: dict[str, Any]) -> None:
    database.write_now(lambda tx: insert_flows(tx, rows))


def gather(database: Database, *, span: FlowSpan = SPAN, limit: int = 100, **filters: list[str]) -> FlowNews:
    wanted: dict[str, list[str]] = {"policy_ids": [], "devbox_ids": []} | filters
    return database.read_now(lambda tx: gather_flows(tx, span, "deny", limit=limit, **wanted))


@pytest.fixture
def account_id(database: Database) -> str:
    return create_account(database, IdMaker(), "one", 1).account_id


def make_row(account_id: str, webhook_id: str = "whk_1", **other: Any) -> WebhookRow:
    values: dict[str, Any] = {
        "url": "https://hooks.example/",
        "description": "",
        "events": "[]",
        "policy_ids": "[]",
        "devbox_ids": "[]",
        "enabled": True,
        "sealed": b"s",
        "old_sealed": None,
        "old_until_ms": None,
        "key_fingerprint": "f",
        "flow_cursor": 0,
        "policy_cursor": 0,
        "told_warnings": "[]",
        "next_look_ms": 0,
        "failing_since_ms": None,
        "failures": 0,
        "problem": "",
        "lease": "",
        "lease_until_ms": 0,
        "create_time_ms": 1,
        "update_time_ms": 1,
        "delete_time_ms": None,
    } | other
    return WebhookRow(webhook_id, account_id, **values)


def make_delivery(number: int, webhook_id: str = "whk_1", **other: Any) -> DeliveryRow:
    values: dict[str, Any] = {"state": "pending", "tries": 0, "create_time_ms": 1, "next_try_ms": number} | other
    return DeliveryRow(f"msg_{number:04}", webhook_id, "flow.denied", "{}", **values)


@pytest.fixture
def webhook(database: Database, account_id: str) -> WebhookRow:
    row = make_row(account_id)
    database.write_now(lambda tx: insert_webhook(tx, row))
    return row


def put(database: Database, *rows: DeliveryRow) -> None:
    database.write_now(lambda tx: insert_deliveries(tx, rows))


def test_denials_of_one_kind_are_one_record_with_a_count(database: Database) -> None:
    keep(
        database,
        flow(count=3, began_ms=2, time_ms=4),
        flow(verdict="allow"),
        flow(name="b.example", address="45.0.0.1", port=443),
        flow(time_ms=9, began_ms=8, sentence="the newest"),
        flow(name="b.example", address="45.0.0.2", port=443),
        flow(bytes_out=1, bytes_in=1, duration_ms=1),
        flow(account_id="acc_2"),
    )
    news = gather(database)
    told = [(one.name, one.address, one.count, one.began_ms, one.time_ms, one.sentence) for one in news.flows]
    # Two addresses of one name are one place.
    assert told == [("a.example", "", 4, 2, 9, "the newest"), ("b.example", "45.0.0.2", 2, 5, 5, "")]
    assert news.omitted_count == 0


def test_what_finds_no_room_is_counted(database: Database) -> None:
    keep(database, *(flow(name=f"{n}.example", count=n + 1) for n in range(5)))
    news = gather(database, limit=2)
    assert [one.name for one in news.flows] == ["0.example", "1.example"]
    assert news.omitted_count == 3 + 4 + 5


def test_filters_and_spans(database: Database) -> None:
    keep(database, flow(), flow(devbox_id="dbx_2"), flow(policy_id="npol_2"))
    first = gather(database).flows[0].number
    assert [one.devbox_id for one in gather(database, devbox_ids=["dbx_2"]).flows] == ["dbx_2"]
    assert [one.policy_id for one in gather(database, policy_ids=["npol_2"]).flows] == ["npol_2"]
    assert gather(database, policy_ids=["npol_2"], devbox_ids=["dbx_2"]) == FlowNews((), 0)
    assert len(gather(database, span=FlowSpan("acc_1", first, first + 1)).flows) == 1
    found = database.read_now(lambda tx: find_first_flow(tx, FlowSpan("acc_1", first, 10**9), ["deny", "allow"]))
    assert found == first + 1
    assert database.read_now(lambda tx: find_first_flow(tx, SPAN, ["allow"])) is None


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(ADDRESSES), st.sampled_from((0, 443)), st.integers(1, 10**6)),
        max_size=30,
    ),
    st.integers(1, 5),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_nothing_that_was_denied_is_lost_or_counted_twice(
    sqlite_database: Database, rows: list[tuple[str, str, int, int]], limit: int
) -> None:
    sqlite_database.write_now(lambda tx: tx.execute(text("DELETE FROM flows")))
    keep(sqlite_database, *(flow(name=n, address=a, port=p, count=c) for n, a, p, c in rows))
    news = gather(sqlite_database, limit=limit)
    kinds = {(name, "" if name else address, port) for name, address, port, _ in rows}
    assert len(news.flows) == min(limit, len(kinds))
    assert sum(one.count for one in news.flows) + news.omitted_count == sum(count for *_, count in rows)
    for one in news.flows:
        same = [c for n, a, p, c in rows if (n, p) == (one.name, one.port) and (n or a == one.address)]
        assert one.count == sum(same)


def test_of_two_looks_from_one_place_the_first_counts(database: Database, webhook: WebhookRow) -> None:
    def advance(looked: Looked) -> bool:
        return database.write_now(lambda tx: advance_webhook(tx, webhook, looked, next_look_ms=50))

    assert advance(Looked(7, 0, "[]"))
    assert not advance(Looked(9, 0, "[]"))
    found = database.read_now(lambda tx: find_webhook(tx, webhook.account_id, webhook.id))
    assert found is not None
    assert (found.flow_cursor, found.next_look_ms) == (7, 50)
    assert database.read_now(lambda tx: list_looking(tx, now_ms=49, after="", limit=9)) == []
    assert len(database.read_now(lambda tx: list_looking(tx, now_ms=50, after="", limit=9))) == 1
    assert database.read_now(lambda tx: list_looking(tx, now_ms=50, after=webhook.id, limit=9)) == []


def test_a_webhook_that_was_switched_off_or_deleted_is_told_nothing(database: Database, account_id: str) -> None:
    rows = [make_row(account_id, "whk_off", enabled=False), make_row(account_id, "whk_gone", delete_time_ms=1)]
    for row in rows:
        database.write_now(lambda tx, row=row: insert_webhook(tx, row))  # type: ignore[misc] # a lambda's default
        put(database, make_delivery(len(row.id), row.id))
        assert not database.write_now(
            lambda tx, row=row: advance_webhook(tx, row, Looked(1, 1, "[]"), next_look_ms=1)  # type: ignore[misc] # as above
        )
    due = database.read_now(lambda tx: list_due_webhooks(tx, now_ms=99, busy_accounts=(), limit=9))
    assert due == []
    assert database.read_now(lambda tx: list_looking(tx, now_ms=99, after="", limit=9)) == []
    assert database.read_now(lambda tx: count_webhooks(tx, account_id)) == 1
    assert database.read_now(lambda tx: has_webhooks_under_other_keys(tx, "other"))
    assert not database.read_now(lambda tx: has_webhooks_under_other_keys(tx, "f"))


def lease(database: Database, name: str, now_ms: int, *, until_ms: int = 1000) -> DeliveryRow | None:
    return database.write_now(lambda tx: lease_delivery(tx, "whk_1", lease=name, now_ms=now_ms, until_ms=until_ms))


def test_a_lease_keeps_others_away_until_it_is_given_back_or_ends(database: Database, webhook: WebhookRow) -> None:
    put(database, make_delivery(2), make_delivery(1))
    due = database.read_now(lambda tx: list_due_webhooks(tx, now_ms=5, busy_accounts=(), limit=9))
    assert [one.id for one in due] == [webhook.id]
    assert (
        database.read_now(lambda tx: list_due_webhooks(tx, now_ms=5, busy_accounts=[webhook.account_id], limit=9)) == []
    )
    first = lease(database, "one", 5)
    assert first is not None
    assert first.id == "msg_0001"
    assert lease(database, "two", 6) is None
    assert database.read_now(lambda tx: list_due_webhooks(tx, now_ms=6, busy_accounts=(), limit=9)) == []
    database.write_now(lambda tx: release_webhook(tx, "whk_1", lease="two"))
    assert lease(database, "two", 7) is None
    late = lease(database, "two", 1000, until_ms=2000)
    assert late is not None
    assert late.id == first.id
    database.write_now(lambda tx: release_webhook(tx, "whk_1", lease="one"))
    assert lease(database, "three", 1001) is None
    database.write_now(lambda tx: release_webhook(tx, "whk_1", lease="two"))
    assert lease(database, "three", 1002) is not None


def test_nothing_due_leaves_no_lease(database: Database, webhook: WebhookRow) -> None:
    put(database, make_delivery(50))
    assert lease(database, "early", 49) is None
    assert lease(database, "due", 50) is not None


def test_what_ended_is_not_settled_again(database: Database, webhook: WebhookRow) -> None:
    put(database, make_delivery(1), make_delivery(2))
    done = make_delivery(1, state="delivered", tries=1, end_time_ms=9, last_try_ms=9, response_code=204)
    assert database.write_now(lambda tx: settle_delivery(tx, done))
    assert not database.write_now(lambda tx: settle_delivery(tx, done))
    assert database.write_now(lambda tx: end_pending(tx, "whk_1", now_ms=10, error="off")) == 1
    assert database.read_now(count_pending) == 0
    found = database.read_now(lambda tx: list_deliveries(tx, "whk_1", before=None, limit=9))
    assert [(one.id, one.state, one.error) for one in found] == [
        ("msg_0002", "failed", "off"),
        ("msg_0001", "delivered", ""),
    ]


def test_the_outbox_does_not_grow(database: Database, webhook: WebhookRow) -> None:
    put(database, *(make_delivery(n, state="delivered", end_time_ms=n) for n in range(1, 9)), make_delivery(9))
    database.write_now(lambda tx: keep_newest(tx, "whk_1", keep_max=9))
    assert len(database.read_now(lambda tx: list_deliveries(tx, "whk_1", before=None, limit=99))) == 9
    database.write_now(lambda tx: keep_newest(tx, "whk_1", keep_max=3))
    left = database.read_now(lambda tx: list_deliveries(tx, "whk_1", before=None, limit=99))
    assert [one.id for one in left] == ["msg_0009", "msg_0008", "msg_0007", "msg_0006"]
    assert database.write_now(lambda tx: forget_old_deliveries(tx, before_ms=8, limit=9)) == 2
    assert database.write_now(lambda tx: forget_deleted_webhooks(tx, before_ms=99, limit=9)) == 0
    database.write_now(lambda tx: tx.execute(update(webhooks).values(delete_time_ms=5)))
    assert database.write_now(lambda tx: forget_deleted_webhooks(tx, before_ms=99, limit=9)) == 1
    assert database.read_now(lambda tx: list_deliveries(tx, "whk_1", before=None, limit=99)) == []


shared = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""SQLite has one writer."""


@pytest.fixture
def pair(database_url: str, database: Database) -> Iterator[tuple[Database, Database]]:
    """Two processes' connections to one store."""
    with Database.open(database_url) as other:
        yield database, other


@shared
def test_of_two_senders_one_gets_each_delivery(pair: tuple[Database, Database], webhook: WebhookRow) -> None:
    put(pair[0], *(make_delivery(n) for n in range(1, 41)))
    taken: list[tuple[int, str]] = []

    def send(sender: int) -> None:
        while len(taken) < 40:
            name = f"{sender}"
            row = lease(pair[sender], name, 100)
            if row is None:
                continue
            taken.append((sender, row.id))
            ended = make_delivery(int(row.id[4:]), state="delivered", end_time_ms=100)

            def settle(tx: Connection, ended: DeliveryRow = ended, name: str = name) -> None:
                assert settle_delivery(tx, ended)
                release_webhook(tx, "whk_1", lease=name)

            pair[sender].write_now(settle)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(send, range(2)))
    assert sorted(delivery_id for _, delivery_id in taken) == [f"msg_{n:04}" for n in range(1, 41)]


@shared
def test_a_number_that_is_not_committed_yet_is_waited_for(pair: tuple[Database, Database]) -> None:
    """Numbers are given out before commits: a cursor beyond one that comes later would never show it."""
    one, other = pair
    values = {
        "name": "h",
        "lookup": "l",
        "digest": b"d",
        "enforced": 0,
        "ready": True,
        "warnings": "[]",
        "seen_time_ms": 0,
    }
    one.write_now(lambda tx: tx.execute(insert(hosts).values(id="host_1", **values)))
    stored, may_commit = threading.Event(), threading.Event()

    def take_slowly(tx: Connection) -> None:
        advance_feed(tx, "host_1", "boot", 1, dropped=0)
        insert_flows(tx, [flow()])
        stored.set()
        assert may_commit.wait(30)

    def waits_for_a_lock(tx: Connection) -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'flow_feeds'::regclass"
        return int(tx.execute(text(query)).scalar_one()) == 1

    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(one.write_now, take_slowly)
        assert stored.wait(30)
        number = threads.submit(other.write_now, find_settled_number)
        while not one.read_now(waits_for_a_lock):
            assert not number.done()
        may_commit.set()
        slow.result(30)
        assert number.result(30) == 1
