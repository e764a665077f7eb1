"""This host's store, opened the way the api opens it, for commands that need no server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from outgate.clock import wall_ms
from outgate.control.accounts import ensure_first_key
from outgate.control.ids import IdMaker
from outgate.server.identity import find_api_identity, require_root
from outgate.server.places import ensure_directories, make_first_key, read_api_key
from outgate.settings import Settings
from outgate.store.database import Database
from outgate.store.migrate import load_migrations, migrate


@contextmanager
def open_store(settings: Settings) -> Iterator[Database]:
    """The store, made and migrated if need be; it has its first account and key then, as after a first ``serve``.

    Needs root, because the store belongs to the api's user. Raises SettingError, StoreError and
    HostNotCapableError.
    """
    require_root("This command")
    identity = find_api_identity(settings)
    make_first_key(settings)
    ensure_directories(settings, identity)
    with Database.open(settings.store_url) as database:
        migrate(database.writer, load_migrations())
        _hand_over(settings, identity.uid, identity.gid)
        ensure_first_key(database, IdMaker(), read_api_key(settings), wall_ms())
        yield database


def _hand_over(settings: Settings, uid: int, gid: int) -> None:
    """What SQLite made as root belongs to the api's user; it gives later files their owner by the first."""
    database = make_url(settings.store_url).database
    if settings.database_url is None and database is not None:
        for path in Path(database).parent.glob(Path(database).name + "*"):
            os.chown(path, uid, gid)
