"""What the store promises of policies, numbers and request keys, on both kinds of database."""

import asyncio
import threading
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import Connection

from outgate.model.plan import GRANT_FIRST, GRANT_LAST
from outgate.store.accounts import AccountRow, insert_account
from outgate.store.database import Database
from outgate.store.errors import GrantsExhaustedError
from outgate.store.policies import (
    PolicyFilter,
    PolicyRow,
    advance_policy,
    count_listed,
    count_policies,
    find_policy,
    find_policy_id_by_name,
    find_policy_locked,
    insert_policy,
    list_policies,
    list_revisions,
    mark_policy_deleted,
    read_documents,
)
from outgate.store.requests import RequestRow, claim_request, forget_oldest_requests, forget_requests_before
from outgate.store.sequence import take_numbers
from outgate.store.tables import counters

ACCOUNT = "acct_one"
OTHER = "acct_two"


def policy_row(policy_id: str, name: str, *, account_id: str = ACCOUNT, number: int) -> PolicyRow:
    return PolicyRow(policy_id, account_id, name, number, 1, 100, 100, None, 5, None, '{"v":1}')


@pytest.fixture(autouse=True)
def _accounts(database: Database) -> None:
    def insert(tx: Connection) -> None:
        insert_account(tx, AccountRow(ACCOUNT, "one", 1))
        insert_account(tx, AccountRow(OTHER, "two", 1))

    database.write_now(insert)


def insert_all(database: Database, *rows: PolicyRow) -> None:
    def insert(tx: Connection) -> None:
        for row in rows:
            insert_policy(tx, row, key_id="key_a")

    database.write_now(insert)


def test_a_policy_comes_back_as_it_went_in(database: Database) -> None:
    row = replace(policy_row("npol_a", "Größe 💾", number=16), description="line\nline")
    insert_all(database, row)
    assert database.read_now(lambda tx: find_policy(tx, ACCOUNT, "npol_a")) == row


def test_another_account_sees_nothing(database: Database) -> None:
    insert_all(database, policy_row("npol_a", "a", number=16))

    def look(tx: Connection) -> list[object]:
        return [
            find_policy(tx, OTHER, "npol_a"),
            find_policy_id_by_name(tx, OTHER, "a"),
            list_policies(tx, OTHER, PolicyFilter(), limit=10),
            count_policies(tx, OTHER),
            list_revisions(tx, OTHER, "npol_a", before=None, limit=10),
        ]

    assert database.read_now(look) == [None, None, [], 0, []]


def test_revisions_stay_as_they_were(database: Database) -> None:
    first = policy_row("npol_a", "a", number=16)
    second = replace(first, name="b", revision=2, update_time_ms=200, seq=6, document='{"v":2}', description="d")
    insert_all(database, first)
    database.write_now(lambda tx: advance_policy(tx, second, key_id="key_b"))

    assert database.read_now(lambda tx: find_policy(tx, ACCOUNT, "npol_a")) == second
    revisions = database.read_now(lambda tx: list_revisions(tx, ACCOUNT, "npol_a", before=None, limit=10))
    assert [(r.revision, r.document, r.key_id, r.time_ms) for r in revisions] == [
        (2, '{"v":2}', "key_b", 200),
        (1, '{"v":1}', "key_a", 100),
    ]
    older = database.read_now(lambda tx: list_revisions(tx, ACCOUNT, "npol_a", before=2, limit=10))
    assert [r.revision for r in older] == [1]


def test_a_deleted_policy_gives_back_its_name_and_keeps_its_document(database: Database) -> None:
    insert_all(database, policy_row("npol_a", "a", number=16))
    database.write_now(lambda tx: mark_policy_deleted(tx, "npol_a", now_ms=300, seq=7))
    insert_all(database, policy_row("npol_b", "a", number=17))

    assert database.read_now(lambda tx: find_policy_id_by_name(tx, ACCOUNT, "a")) == "npol_b"
    assert database.read_now(lambda tx: count_policies(tx, ACCOUNT)) == 1
    deleted = database.read_now(lambda tx: find_policy(tx, ACCOUNT, "npol_a"))
    assert deleted is not None
    assert deleted.delete_time_ms == 300
    assert database.read_now(lambda tx: read_documents(tx, ["npol_a"])) == {"npol_a": '{"v":1}'}


def test_order_and_cursor_are_by_bytes_of_the_id(database: Database) -> None:
    # A locale would sort these differently.
    ids = ["npol_0", "npol_9", "npol_A", "npol_Z", "npol_a", "npol_z"]
    insert_all(database, *(policy_row(name, name, number=16 + n) for n, name in enumerate(ids)))

    def page(before: str | None) -> list[str]:
        rows = database.read_now(lambda tx: list_policies(tx, ACCOUNT, PolicyFilter(before=before), limit=4))
        return [row.id for row in rows]

    assert page(None) == ["npol_z", "npol_a", "npol_Z", "npol_A"]
    assert page("npol_A") == ["npol_9", "npol_0"]
    assert page("npol_B") == ["npol_A", "npol_9", "npol_0"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (PolicyFilter(name_part="RED"), ["npol_c", "npol_a"]),
        (PolicyFilter(name_part="100%"), ["npol_b"]),
        (PolicyFilter(name_part="_"), ["npol_b"]),
        (PolicyFilter(id="npol_a"), ["npol_a"]),
        (PolicyFilter(search="npol_b"), ["npol_b"]),
        (PolicyFilter(search="red"), ["npol_c", "npol_a"]),
        (PolicyFilter(search="npol"), []),
    ],
)
def test_filters(database: Database, wanted: PolicyFilter, found: list[str]) -> None:
    insert_all(
        database,
        policy_row("npol_a", "Red one", number=16),
        policy_row("npol_b", "100%_blue", number=17),
        policy_row("npol_c", "infrared", number=18),
    )
    rows = database.read_now(lambda tx: list_policies(tx, ACCOUNT, wanted, limit=10))
    assert [row.id for row in rows] == found
    assert database.read_now(lambda tx: count_listed(tx, ACCOUNT, wanted)) == len(found)


def test_numbers_are_given_out_once(database: Database) -> None:
    first = database.write_now(lambda tx: take_numbers(tx, grants=3, policy_numbers=1))
    second = database.write_now(lambda tx: take_numbers(tx, grants=1, policy_numbers=1))
    assert (first.grant_first, second.grant_first) == (GRANT_FIRST, GRANT_FIRST + 3)
    assert (first.policy_number_first, second.policy_number_first) == (16, 17)
    assert second.seq == first.seq + 1


def test_the_last_grant_is_given_out_and_none_after_it(database: Database) -> None:
    database.write_now(lambda tx: tx.execute(counters.update().values(grant_next=GRANT_LAST)))
    assert database.write_now(lambda tx: take_numbers(tx, grants=1)).grant_first == GRANT_LAST
    with pytest.raises(GrantsExhaustedError):
        database.write_now(lambda tx: take_numbers(tx, grants=1))


def test_a_writer_that_waited_for_another_sees_what_it_wrote(database: Database) -> None:
    insert_all(database, policy_row("npol_a", "a", number=16))
    read, written = threading.Event(), threading.Event()

    def slow(tx: Connection) -> None:
        row = find_policy_locked(tx, ACCOUNT, "npol_a")
        assert row is not None
        read.set()
        # Long enough for the other to come to its lock.
        written.wait(0.3)
        advance_policy(tx, replace(row, revision=row.revision + 1, document="slow"), key_id="k")

    def quick(tx: Connection) -> None:
        row = find_policy_locked(tx, ACCOUNT, "npol_a")
        assert row is not None
        advance_policy(tx, replace(row, revision=row.revision + 1, document=row.document + "+quick"), key_id="k")

    thread = threading.Thread(target=lambda: database.write_now(slow))
    thread.start()
    assert read.wait(5)
    database.write_now(quick)
    written.set()
    thread.join()
    row = database.read_now(lambda tx: find_policy(tx, ACCOUNT, "npol_a"))
    assert row is not None
    assert (row.revision, row.document) == (3, "slow+quick")


def request_row(name: bytes, time_ms: int = 100, resource: str = "npol_a") -> RequestRow:
    return RequestRow(name.ljust(32), b"body".ljust(32), resource, time_ms)


def test_a_request_is_claimed_once(database: Database) -> None:
    first, second = request_row(b"r"), request_row(b"r", 200, "npol_b")
    assert database.write_now(lambda tx: claim_request(tx, first)) is None
    assert database.write_now(lambda tx: claim_request(tx, second)) == first


def test_of_two_claims_at_once_one_wins(database: Database) -> None:
    async def run() -> list[RequestRow | None]:
        claims = [partial(claim_request, row=request_row(b"r", resource=f"npol_{n}")) for n in range(20)]
        return await asyncio.gather(*(database.write(claim) for claim in claims))

    results = asyncio.run(run())
    assert results.count(None) == 1
    assert len({result.resource_id for result in results if result is not None}) == 1


def test_old_requests_are_forgotten_oldest_first(database: Database) -> None:
    def fill(tx: Connection) -> None:
        for n in range(10):
            claim_request(tx, request_row(b"%d" % n, time_ms=n))

    database.write_now(fill)
    assert database.write_now(lambda tx: forget_requests_before(tx, 5, limit=3)) == 3
    assert database.write_now(lambda tx: forget_requests_before(tx, 5, limit=3)) == 2
    assert database.write_now(lambda tx: forget_oldest_requests(tx, keep_max=2, limit=100)) == 3
    assert database.write_now(lambda tx: forget_oldest_requests(tx, keep_max=2, limit=100)) == 0
    assert database.write_now(lambda tx: claim_request(tx, request_row(b"9"))) is not None
    assert database.write_now(lambda tx: claim_request(tx, request_row(b"7"))) is None
