"""Bring a database to this version's schema, at start, from the packaged Alembic revisions."""

from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from outgate.errors import SettingError
from outgate.store.errors import StoreError, explain_database_error
from outgate.store.schema import metadata

_LOCK_KEY: Final = 0x6F757467
"""Advisory lock ("outg") that makes api processes which start together migrate one after the other."""


def load_migrations() -> ScriptDirectory:
    """The revisions, all imported.

    Separate from :func:`migrate` so that it can run while the files may still be read, before the
    process gives up its privileges.
    """
    scripts = ScriptDirectory(str(Path(__file__).parent / "migrations"))
    scripts.get_heads()
    return scripts


def migrate(engine: Engine, scripts: ScriptDirectory) -> None:
    """Bring the database behind ``engine`` to the newest revision, in one transaction.

    Raises SettingError when the database belongs to a newer Outgate, StoreError when it fails.
    """

    def pending(current: Any, _context: MigrationContext) -> Any:
        # What alembic.command.upgrade does; that function would want an env.py on disk.
        return scripts._upgrade_revs("head", current)  # noqa: SLF001 - there is no public name for it

    environment = EnvironmentContext(Config(), scripts, fn=pending)
    try:
        with engine.begin() as connection, environment:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            environment.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
            environment.run_migrations()
    except CommandError as error:
        raise SettingError(f"The database was not made by this version of Outgate or an older one: {error}.") from error
    except DBAPIError as error:
        explained = explain_database_error(error)
        if isinstance(explained, StoreError):
            raise explained from error
        raise


def count_pending(engine: Engine, scripts: ScriptDirectory) -> int:
    """How many revisions the database lacks; nothing is changed.

    Raises SettingError for a database of a newer Outgate, and what the engine raises for one that cannot be read.
    """
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_heads()
    try:
        return sum(1 for _ in scripts.iterate_revisions("head", current or "base"))
    except CommandError as error:
        raise SettingError(f"The database was not made by this version of Outgate or an older one: {error}.") from error
