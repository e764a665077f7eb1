"""Objects, secrets and configurations: the same from SQLite and PostgreSQL."""

from dataclasses import replace

from outgate.control.ids import IdMaker, IdPrefix
from outgate.store.accounts import AccountRow, insert_account
from outgate.store.configs import ConfigFilter, ConfigRow, find_config_by_name, forget_deleted_configs, insert_config
from outgate.store.configs import count_listed as count_configs_listed
from outgate.store.database import Database
from outgate.store.objects import (
    ObjectFilter,
    ObjectRow,
    Usage,
    find_named_files,
    find_object_locked,
    forget_ended_objects,
    has_due,
    insert_object,
    list_due_locked,
    list_objects,
    read_usage,
    save_object,
)
from outgate.store.secrets import (
    SecretRow,
    find_secret_by_name_locked,
    find_secret_locked,
    find_secrets_by_name,
    forget_deleted_secrets,
    has_secrets_under_other_keys,
    insert_secret,
    save_secret,
)

ids = IdMaker()


def make_account(database: Database) -> str:
    account = AccountRow(ids.make(IdPrefix.ACCOUNT, 1), ids.make(IdPrefix.REQUEST, 1), 1)
    database.write_now(lambda tx: insert_account(tx, account))
    return account.id


def make_object(account_id: str, **fields: object) -> ObjectRow:
    row = ObjectRow(
        ids.make(IdPrefix.OBJECT, 1), account_id, "o_%", "text", "UPLOADING", "{}", None, None, 1, None, None
    )
    return replace(row, **fields)  # type: ignore[arg-type] # the fields of a row, by name


def test_objects(database: Database) -> None:
    account_id = make_account(database)
    first = make_object(account_id, size_bytes=2**40, file="a", state="READ_ONLY", delete_after_time_ms=100)
    second = make_object(account_id, create_time_ms=50)
    ended = make_object(account_id, state="DELETED", end_time_ms=70, size_bytes=5)
    for row in (first, second, ended):
        database.write_now(lambda tx, row=row: insert_object(tx, row))  # type: ignore[misc] # mypy and lambdas' defaults
    assert database.write_now(lambda tx: find_object_locked(tx, first.id)) == first
    assert database.read_now(lambda tx: read_usage(tx, account_id)) == Usage(2, 2**40)
    assert database.read_now(lambda tx: read_usage(tx, "acct_none")) == Usage(0, 0)
    assert database.read_now(lambda tx: find_named_files(tx, ["a", "b"])) == {"a"}
    listed = database.read_now(lambda tx: list_objects(tx, account_id, ObjectFilter(name_part="_%"), limit=9))
    assert listed == [second, first]

    def due(now_ms: int, abandoned_ms: int) -> list[ObjectRow]:
        found = database.write_now(lambda tx: list_due_locked(tx, now_ms=now_ms, abandoned_ms=abandoned_ms, limit=9))
        assert database.read_now(lambda tx: has_due(tx, now_ms=now_ms, abandoned_ms=abandoned_ms)) == bool(found)
        return found

    assert due(99, 49) == []
    assert due(100, 49) == [first]
    assert due(99, 50) == [second]
    changed = replace(first, state="DELETED", file=None, end_time_ms=101)
    database.write_now(lambda tx: save_object(tx, changed))
    assert database.write_now(lambda tx: find_object_locked(tx, first.id)) == changed
    assert database.write_now(lambda tx: forget_ended_objects(tx, before_ms=101, limit=9)) == 1
    assert database.write_now(lambda tx: find_object_locked(tx, ended.id)) is None


def test_secrets(database: Database) -> None:
    account_id = make_account(database)
    row = SecretRow(ids.make(IdPrefix.SECRET, 1), account_id, "N", b"\x00\xff", "key-1", 1, 1, None)
    database.write_now(lambda tx: insert_secret(tx, row))
    assert database.write_now(lambda tx: find_secret_by_name_locked(tx, account_id, "N")) == row
    assert database.read_now(lambda tx: find_secrets_by_name(tx, account_id, ["N", "M"])) == {"N": row}
    assert database.read_now(lambda tx: has_secrets_under_other_keys(tx, "key-2"))
    assert not database.read_now(lambda tx: has_secrets_under_other_keys(tx, "key-1"))
    gone = replace(row, sealed=b"", key_fingerprint="", delete_time_ms=9)
    database.write_now(lambda tx: save_secret(tx, gone))
    assert not database.read_now(lambda tx: has_secrets_under_other_keys(tx, "key-2"))
    database.write_now(lambda tx: insert_secret(tx, replace(row, id=ids.make(IdPrefix.SECRET, 2))))
    assert database.write_now(lambda tx: find_secret_locked(tx, account_id, row.id)) == gone
    assert database.write_now(lambda tx: forget_deleted_secrets(tx, before_ms=9, limit=9)) == 0
    assert database.write_now(lambda tx: forget_deleted_secrets(tx, before_ms=10, limit=9)) == 1


def test_configs(database: Database) -> None:
    account_id = make_account(database)
    row = ConfigRow(ids.make(IdPrefix.MCP_CONFIG, 1), account_id, "mcp", "n", "{}", 1, None)
    database.write_now(lambda tx: insert_config(tx, row))
    assert database.read_now(lambda tx: find_config_by_name(tx, account_id, "mcp", "n")) == row
    assert database.read_now(lambda tx: find_config_by_name(tx, account_id, "gateway", "n")) is None
    wanted = ConfigFilter(search=row.id)
    assert database.read_now(lambda tx: count_configs_listed(tx, account_id, "mcp", wanted)) == 1
    old = replace(row, id=ids.make(IdPrefix.MCP_CONFIG, 2), delete_time_ms=5)
    database.write_now(lambda tx: insert_config(tx, old))
    assert database.write_now(lambda tx: forget_deleted_configs(tx, before_ms=6, limit=9)) == 1
