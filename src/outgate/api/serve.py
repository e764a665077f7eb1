"""The api process: load everything, give up privileges, then serve."""

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import uvloop
from alembic.script import ScriptDirectory
from fastapi import FastAPI

from outgate.api.app import create_app
from outgate.api.internal import create_internal_app
from outgate.api.listener import Listener, end_listeners, quiet_granian
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


@dataclass(frozen=True, slots=True)
class Applications:
    """The two applications, made before there are services: making them reads files."""

    public: FastAPI
    internal: FastAPI

    @classmethod
    def make(cls) -> Self:
        """Both, serving nobody yet."""
        return cls(create_app(), create_internal_app())

    def listen(
        self, services: Services, public: Sequence[socket.socket], internal: Sequence[socket.socket]
    ) -> tuple[Listener, ...]:
        """Listeners that serve ``services`` on these sockets."""
        self.public.state.services = services
        self.internal.state.services = services
        return (
            *(Listener(self.public, bound) for bound in public),
            *(Listener(self.internal, bound) for bound in internal),
        )


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
    loaded = _Loaded(load_migrations(), Applications.make())
    allow_many_files()
    if config.identity is not None:
        drop_privileges(config.identity)
    uvloop.run(_serve(config, loaded, public, internal, on_serving))


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was read from files while that was allowed."""

    migrations: ScriptDirectory
    applications: Applications


async def _serve(
    config: ServeConfig,
    loaded: _Loaded,
    public: Sequence[socket.socket],
    internal: Sequence[socket.socket],
    on_serving: Callable[[Serving], None],
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with Database.open(config.database_url) as database:
        migrate(database.writer, loaded.migrations)
        services = Services(config.settings, database, config.gateway)
        first_key = ensure_first_key(database, services.ids, config.first_key, wall_ms())
        if config.host is not None:
            ensure_host(services, config.host.name, config.host.token, wall_ms())
        listeners = loaded.applications.listen(services, public, internal)
        await serve_services(services, listeners, stop, lambda: on_serving(Serving(first_key)))


async def serve_services(
    services: Services,
    listeners: Sequence[Listener],
    stop: asyncio.Event,
    on_serving: Callable[[], None],
) -> None:
    """Serve until ``stop``; waits under way are ended then, and what is answered is answered whole."""
    quiet_granian()
    serving = [asyncio.create_task(listener.serve()) for listener in listeners]
    sweeper = asyncio.create_task(sweep_forever(services))
    stopping = asyncio.create_task(stop.wait())
    # Connections queue in the bound sockets from before this point on: none is refused.
    asyncio.get_running_loop().call_soon(on_serving)
    try:
        done, _ = await asyncio.wait({*serving, sweeper, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        services.wakeups.close()
        await end_listeners(listeners, serving)
        sweeper.cancel()
        stopping.cancel()
    if stopping not in done:
        # Half an api is worse than none: the process ends, and whoever started it starts it again.
        failed = next(iter(done))
        raise RuntimeError("a part of the api ended by itself") from failed.exception()
