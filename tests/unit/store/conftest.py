import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.store.database import Database
from support.api_server import open_database
from support.postgres import create_database, find_postgres, run_postgres

_names = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed")
    with run_postgres(binaries) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same contract for both kinds of store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'outgate.db'}"
    server: str = request.getfixturevalue("postgres_url")
    binaries = find_postgres()
    assert binaries is not None
    return create_database(binaries, server, f"test{next(_names)}")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with open_database(database_url) as opened:
        yield opened


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "outgate.db"


@pytest.fixture
def sqlite_database(sqlite_path: Path) -> Iterator[Database]:
    with open_database(f"sqlite:///{sqlite_path}") as opened:
        yield opened
