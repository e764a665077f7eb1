from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from outgate.errors import SettingError
from outgate.store.database import Database
from outgate.store.migrate import load_migrations, migrate
from outgate.store.schema import metadata


def test_migrations_make_exactly_the_tables_that_the_code_uses(database: Database) -> None:
    with database.writer.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    before = database.read_now(lambda tx: tx.execute(text("SELECT * FROM counters")).all())
    migrate(database.writer, load_migrations())
    assert database.read_now(lambda tx: tx.execute(text("SELECT * FROM counters")).all()) == before


def test_there_is_one_line_of_migrations() -> None:
    assert len(load_migrations().get_heads()) == 1


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database) -> None:
    database.write_now(lambda tx: tx.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(SettingError, match="not made by this version of Outgate"):
        migrate(database.writer, load_migrations())
    found = database.read_now(lambda tx: tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    assert found == "9999"


def test_a_migration_that_fails_halfway_leaves_nothing(sqlite_path: Path) -> None:
    with Database.open(f"sqlite:///{sqlite_path}") as database:
        # The last table of the migration is in the way.
        database.write_now(lambda tx: tx.execute(text("CREATE TABLE requests (x INTEGER)")))
        with pytest.raises(Exception, match="database failed"):
            migrate(database.writer, load_migrations())
        names = database.read_now(lambda tx: tx.execute(text("SELECT name FROM sqlite_master")).scalars().all())
        assert names == ["requests"]
