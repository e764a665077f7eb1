"""This host's store, opened the way the api opens it, for commands that need no server."""

from collections.abc import Iterator
from contextlib import contextmanager

from outgate.api.preload import preload
from outgate.clock import wall_ms
from outgate.control.accounts import ensure_first_key
from outgate.control.ids import IdMaker
from outgate.server.identity import acting_as, find_api_identity, require_root
from outgate.server.places import ensure_api_directory, ensure_directories, make_first_key, read_api_key
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
    ensure_directories(settings)
    make_first_key(settings)
    ensure_api_directory(settings, identity)
    first_key, migrations = read_api_key(settings), load_migrations()
    preload()  # what is imported late may lie where only root can read
    # What is made here belongs to the api's user, and nothing that lies in its directory leads root astray.
    with acting_as(identity), Database.open(settings.store_url) as database:
        migrate(database.writer, migrations)
        ensure_first_key(database, IdMaker(), first_key, wall_ms())
        yield database
