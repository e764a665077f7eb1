"""The api process: load everything, give up privileges, then serve."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop
from alembic.script import ScriptDirectory

from outgate.api.app import create_app
from outgate.api.internal import create_internal_app
from outgate.api.listener import Listener, quiet_granian, serve_listeners
from outgate.api.preload import preload
from outgate.api.privileges import Identity, allow_many_files, drop_privileges
from outgate.clock import wall_ms
from outgate.control.accounts import NewKey, ensure_first_key
from outgate.control.configuration import ApiSettings
from outgate.control.gateway import AgentGateway
from outgate.control.hosts import ensure_host
from outgate.control.services import Services
from outgate.control.sweeper import sweep_forever
from outgate.store.database import Database
from outgate.store.migrate import load_migrations, migrate


@dataclass(frozen=True, slots=True)
class HostToken:
    """A host that this api shall know: its name and its agent's token."""

    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What the api process is given.

    ``first_key``: the key of the first account, generated when None. ``host``: the agent on this machine, if
    there is one. ``identity``: who to become before serving; None stays as it is. The database file's directory
    must be writable for that identity: everything in it is made afterwards.
    """

    database_url: str = field(repr=False)
    settings: ApiSettings
    gateway: AgentGateway
    first_key: str | None = field(default=None, repr=False)
    host: HostToken | None = None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """Said once, when connections are answered. ``first_key`` is set when a key was made by this start."""

    first_key: NewKey | None


def run_api(
    config: ServeConfig,
    public: Sequence[socket.socket],
    internal: Sequence[socket.socket],
    on_serving: Callable[[Serving], None],
) -> None:
    """Serve ``public`` and ``internal`` (bound and listening) until SIGTERM or SIGINT.

    Raises SettingError, StoreError, HostNotCapableError when it cannot start.
    """
    preload()
    scripts = load_migrations()
    allow_many_files()
    if config.identity is not None:
        drop_privileges(config.identity)
    uvloop.run(_serve(config, scripts, public, internal, on_serving))


async def _serve(
    config: ServeConfig,
    scripts: ScriptDirectory,
    public: Sequence[socket.socket],
    internal: Sequence[socket.socket],
    on_serving: Callable[[Serving], None],
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with Database.open(config.database_url) as database:
        migrate(database.writer, scripts)
        services = Services(config.settings, database, config.gateway)
        first_key = ensure_first_key(database, services.ids, config.first_key, wall_ms())
        if config.host is not None:
            ensure_host(services, config.host.name, config.host.token, wall_ms())
        await serve_services(services, public, internal, stop, lambda: on_serving(Serving(first_key)))


async def serve_services(
    services: Services,
    public: Sequence[socket.socket],
    internal: Sequence[socket.socket],
    stop: asyncio.Event,
    on_serving: Callable[[], None],
) -> None:
    """Serve until ``stop``; waits under way are ended then, and what is answered is answered whole."""
    quiet_granian()
    app, internal_app = create_app(services), create_internal_app(services)
    listeners = [Listener(app, bound) for bound in public] + [Listener(internal_app, bound) for bound in internal]
    sweeper = asyncio.ensure_future(sweep_forever(services))

    async def close_waits() -> None:
        await stop.wait()
        services.wakeups.close()

    closing = asyncio.ensure_future(close_waits())
    # Connections queue in the bound sockets from before this point on: none is refused.
    loop = asyncio.get_running_loop()
    loop.call_soon(on_serving)
    try:
        await serve_listeners(listeners, stop)
    finally:
        sweeper.cancel()
        closing.cancel()
