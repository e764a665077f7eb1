"""The api process: load everything, give up privileges, then serve."""

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import uvloop
from alembic.script import ScriptDirectory
from fastapi import FastAPI

from outgate.api.app import create_app
from outgate.api.front import create_front_app
from outgate.api.internal import create_internal_app
from outgate.api.listener import Listener, end_listeners, quiet_granian
from outgate.api.otel import load_otel
from outgate.api.preload import preload
from outgate.api.terminal_serving import TerminalServing, serve_terminals
from outgate.clock import wall_ms
from outgate.console.app import add_console
from outgate.control.accounts import NewKey, ensure_first_key
from outgate.control.configuration import ApiSettings
from outgate.control.gateway import AgentGateway
from outgate.control.hosts import ensure_host
from outgate.control.metrics import Metrics
from outgate.control.object_files import ObjectFiles
from outgate.control.secrets import load_keys
from outgate.control.services import Services
from outgate.control.snapshot_following import follow_snapshots_forever
from outgate.control.sweeper import sweep_forever
from outgate.control.telemetry import NoTelemetry, Telemetry
from outgate.control.webhook_delivery import deliver_forever
from outgate.privileges import Identity, drop_privileges, raise_descriptor_limit
from outgate.store.database import Database
from outgate.store.migrate import load_migrations, migrate

if TYPE_CHECKING:
    from outgate.api.otel_export import OtelTelemetry


@dataclass(frozen=True, slots=True)
class HostToken:
    """A host that this api shall know: its name and its agent's token."""

    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ResourcePlaces:
    """Where the api keeps what is not in the database: the key of secrets and signed URLs, and objects' bytes.

    ``is_key_given``: the operator named the key file, so a missing one is a mistake and none is made.
    """

    key_file: Path
    objects_dir: Path
    is_key_given: bool = False


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
    resources: ResourcePlaces
    first_key: str | None = field(default=None, repr=False)
    host: HostToken | None = None
    identity: Identity | None = None
    otel_endpoint: str | None = None
    """Where the OpenTelemetry collector is, if there is one."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Said once, when connections are answered. ``first_key`` is set when a key was made by this start."""

    first_key: NewKey | None


@dataclass(frozen=True, slots=True)
class Applications:
    """The applications, made before there are services: making them reads files."""

    public: FastAPI
    internal: FastAPI
    front: FastAPI

    @classmethod
    def make(cls) -> Self:
        """All of them, serving nobody yet."""
        public = create_app()
        add_console(public)
        return cls(public, create_internal_app(), create_front_app())

    def listen(
        self, services: Services, public: Sequence[socket.socket], internal: Sequence[socket.socket]
    ) -> tuple[Listener, ...]:
        """Listeners that serve ``services`` on these sockets."""
        self.public.state.services = services
        self.internal.state.services = services
        return (
            *(Listener(self.public, bound, services.settings.proxies) for bound in public),
            *(Listener(self.internal, bound) for bound in internal),
        )

    def listen_for_front(self, services: Services, bound: socket.socket, host_id: str) -> Listener:
        """A listener for the tunnel front of that host."""
        self.front.state.services = services
        self.front.state.host_id = host_id
        return Listener(self.front, bound)


def run_api(
    config: ServeConfig,
    public: Sequence[socket.socket],
    internal: Sequence[socket.socket],
    on_serving: Callable[[Serving], None],
    *,
    front: socket.socket | None = None,
    terminals: TerminalServing | None = None,
) -> None:
    """Serve ``public`` and ``internal`` (bound and listening) until SIGTERM or SIGINT.

    ``front`` is where the tunnel front of ``config.host`` asks, if there is one; ``terminals`` is where terminals are.

    Raises SettingError, StoreError, HostNotCapableError when it cannot start.
    """
    preload()
    loaded = _Loaded(load_migrations(), Applications.make(), load_otel() if config.otel_endpoint else None)
    raise_descriptor_limit()  # each long poll holds a connection
    if config.identity is not None:
        drop_privileges(config.identity)
    uvloop.run(_serve(config, loaded, public, internal, on_serving, front=front, terminals=terminals))


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was read from files while that was allowed."""

    migrations: ScriptDirectory
    applications: Applications
    otel: "type[OtelTelemetry] | None"


async def _serve(
    config: ServeConfig,
    loaded: _Loaded,
    public: Sequence[socket.socket],
    internal: Sequence[socket.socket],
    on_serving: Callable[[Serving], None],
    *,
    front: socket.socket | None,
    terminals: TerminalServing | None,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with Database.open(config.database_url) as database:
        migrate(database.writer, loaded.migrations)
        places = config.resources
        keys = load_keys(database, places.key_file, is_given=places.is_key_given)
        objects = ObjectFiles(places.objects_dir)
        objects.prepare()
        metrics = Metrics()
        telemetry: Telemetry = NoTelemetry()
        if loaded.otel is not None and config.otel_endpoint is not None:
            telemetry = loaded.otel(config.otel_endpoint, metrics)
        services = Services(
            config.settings, database, config.gateway, keys, objects, metrics=metrics, telemetry=telemetry
        )
        first_key = ensure_first_key(database, services.ids, config.first_key, wall_ms())
        listeners = loaded.applications.listen(services, public, internal)
        if config.host is not None:
            host = ensure_host(services, config.host.name, config.host.token, wall_ms())
            if front is not None:
                listeners += (loaded.applications.listen_for_front(services, front, host.id),)
        besides = () if terminals is None else (serve_terminals(services, terminals),)
        try:
            await serve_services(services, listeners, stop, lambda: on_serving(Serving(first_key)), besides=besides)
        finally:
            telemetry.close()


async def serve_services(
    services: Services,
    listeners: Sequence[Listener],
    stop: asyncio.Event,
    on_serving: Callable[[], None],
    *,
    besides: Sequence[Coroutine[Any, Any, None]] = (),
) -> None:
    """Serve until ``stop``; waits under way are ended then, and what is answered is answered whole.

    ``besides``: what else goes on as long as the services do.
    """
    quiet_granian()
    others = [
        asyncio.create_task(work) for work in (follow_snapshots_forever(services), deliver_forever(services), *besides)
    ]
    serving = [asyncio.create_task(listener.serve()) for listener in listeners]
    sweeper = asyncio.create_task(sweep_forever(services))
    stopping = asyncio.create_task(stop.wait())
    # Connections queue in the bound sockets from before this point on: none is refused.
    asyncio.get_running_loop().call_soon(on_serving)
    try:
        done, _ = await asyncio.wait({*serving, *others, sweeper, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        services.wakeups.close()
        await end_listeners(listeners, serving)
        for task in (sweeper, stopping, *others):
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    if stopping not in done:
        # Half an api is worse than none: the process ends, and whoever started it starts it again.
        failed = next(iter(done))
        raise RuntimeError("a part of the api ended by itself") from failed.exception()
