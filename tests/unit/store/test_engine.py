import stat
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outgate.errors import SettingError
from outgate.store.database import Database
from outgate.store.engine import open_engines


def test_the_database_file_is_private(sqlite_database: Database, sqlite_path: Path) -> None:
    files = list(sqlite_path.parent.glob("outgate.db*"))
    assert {path.name for path in files} == {"outgate.db", "outgate.db-wal", "outgate.db-shm"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_sqlite_writes_ahead_and_waits_for_the_disk(sqlite_database: Database) -> None:
    def read_pragma(name: str) -> object:
        return sqlite_database.write_now(lambda tx: tx.execute(text(f"PRAGMA {name}")).scalar_one())

    full = 2
    assert (read_pragma("journal_mode"), read_pragma("synchronous"), read_pragma("foreign_keys")) == ("wal", full, 1)


def test_readers_cannot_write(sqlite_database: Database) -> None:
    engines = open_engines(str(sqlite_database.writer.url))
    with engines.reader.begin() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.execute(text("UPDATE counters SET seq = 99"))
    engines.reader.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is not a database URL"),
        ("nonsense", "is not a database URL"),
        ("mysql://host/name", "names 'mysql'"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////nonexistent-directory/x.db", "cannot be opened: No such file or directory"),
    ],
)
def test_urls_that_cannot_be_used_are_refused_by_name(url: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        open_engines(url)
