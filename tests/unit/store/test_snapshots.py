"""Snapshots: the same from SQLite and PostgreSQL."""

import json
from dataclasses import replace

from sqlalchemy import insert, update

from outgate.control.ids import IdMaker, IdPrefix
from outgate.store.accounts import AccountRow, insert_account
from outgate.store.database import Database
from outgate.store.hosts import HostRow, insert_host
from outgate.store.snapshots import (
    SnapshotFilter,
    SnapshotRow,
    count_kept,
    count_listed,
    find_snapshot,
    find_snapshot_locked,
    insert_snapshot,
    is_in_progress,
    list_in_progress,
    list_snapshots,
    list_unreleased,
    save_snapshot,
)
from outgate.store.tables import devboxes

ids = IdMaker()


def make_place(database: Database) -> tuple[str, str]:
    """An account and a host."""
    account = AccountRow(ids.make(IdPrefix.ACCOUNT, 1), ids.make(IdPrefix.REQUEST, 1), 1)
    host_id = ids.make(IdPrefix.HOST, 1)
    host = HostRow(host_id, host_id, "lookup", b"digest", None, None, 0, False, "[]", 0)
    database.write_now(lambda tx: insert_account(tx, account))
    database.write_now(lambda tx: insert_host(tx, host))
    return account.id, host_id


def make_snapshot(database: Database, place: tuple[str, str], **fields: object) -> SnapshotRow:
    plain = SnapshotRow(
        id=ids.make(IdPrefix.SNAPSHOT, 1),
        account_id=place[0],
        host_id=place[1],
        source_devbox_id="dbx_1",
        source_blueprint_id=None,
        policy_id=None,
        name=None,
        commit_message=None,
        metadata="{}",
        status="complete",
        error_message=None,
        size_bytes=2**40,
        create_time_ms=1,
        begun=True,
        released=False,
    )
    row = replace(plain, **fields)  # type: ignore[arg-type] # the fields of a row, by name
    database.write_now(lambda tx: insert_snapshot(tx, row))
    return row


def test_rows_come_back_and_lists_are_filtered(database: Database) -> None:
    place = make_place(database)
    first = make_snapshot(database, place, metadata=json.dumps({"k": "v", "": "empty"}), source_blueprint_id="bpt_1")
    second = make_snapshot(database, place, metadata=json.dumps({"k": "w"}), source_devbox_id="dbx_2")
    make_snapshot(database, place, status="deleted", metadata=json.dumps({"k": "v"}))
    make_snapshot(database, make_place(database), metadata=json.dumps({"k": "v"}))

    def listed(**filters: object) -> list[SnapshotRow]:
        wanted = SnapshotFilter(**filters)  # type: ignore[arg-type] # the fields of a filter, by name
        rows = database.read_now(lambda tx: list_snapshots(tx, place[0], wanted, limit=10))
        if wanted.before is None:
            assert database.read_now(lambda tx: count_listed(tx, place[0], wanted)) == len(rows)
        return rows

    assert listed() == [second, first]
    assert listed(before=second.id) == [first]
    assert listed(devbox_id="dbx_2") == [second]
    assert listed(source_blueprint_id="bpt_1") == [first]
    assert listed(metadata={"k": frozenset({"v"})}) == [first]
    assert listed(metadata={"k": frozenset({"v", "w"}), "": frozenset({"empty"})}) == [first]
    assert listed(metadata={"K": frozenset({"v"})}) == []

    changed = replace(second, metadata=json.dumps({"n": "1"}), name="n")
    database.write_now(lambda tx: save_snapshot(tx, changed))
    assert listed(metadata={"n": frozenset({"1"})}) == [changed]
    assert listed(metadata={"k": frozenset({"w"})}) == []
    assert database.read_now(lambda tx: find_snapshot(tx, place[0], second.id)) == changed
    assert database.write_now(lambda tx: find_snapshot_locked(tx, "acct_other", second.id)) is None
    assert database.read_now(lambda tx: count_kept(tx, place[0])) == 2


def test_what_is_in_progress_and_what_is_still_on_its_host(database: Database) -> None:
    place = make_place(database)
    going = make_snapshot(database, place, status="in_progress", source_devbox_id="dbx_going")
    failed = make_snapshot(database, place, status="error")
    deleted = make_snapshot(database, place, status="deleted")
    make_snapshot(database, place, status="deleted", released=True)
    make_snapshot(database, place)
    assert database.read_now(lambda tx: list_in_progress(tx, limit=5)) == [going]
    assert database.read_now(lambda tx: is_in_progress(tx, "dbx_going"))
    assert not database.read_now(lambda tx: is_in_progress(tx, "dbx_1"))
    assert database.read_now(lambda tx: list_unreleased(tx, limit=5)) == [failed, deleted]
    assert database.read_now(lambda tx: list_unreleased(tx, limit=1)) == [failed]

    # One that a devbox waits to start from has to stay.
    values = {
        "id": "dbx_waiting",
        "account_id": place[0],
        "host_id": place[1],
        "policy_id": "npol_1",
        "key_id": "key_1",
        "metadata": "{}",
        "launch_parameters": "{}",
        "status": "provisioning",
        "transitions": "[]",
        "document": "{}",
        "detail": "",
        "create_time_ms": 1,
        "keep_alive_s": 1,
        "expire_time_ms": 1,
        "released": False,
        "seq": 1,
        "snapshot_id": deleted.id,
    }
    database.write_now(lambda tx: tx.execute(insert(devboxes), values))
    assert database.read_now(lambda tx: list_unreleased(tx, limit=5)) == [failed]
    database.write_now(lambda tx: tx.execute(update(devboxes).values(status="running")))
    assert database.read_now(lambda tx: list_unreleased(tx, limit=5)) == [failed, deleted]
    database.write_now(lambda tx: tx.execute(update(devboxes).values(status="provisioning", end_time_ms=2)))
    assert database.read_now(lambda tx: list_unreleased(tx, limit=5)) == [failed, deleted]
