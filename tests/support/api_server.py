"""The real api on real sockets, in a thread, with an agent that only pretends."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from outgate.api.serve import Applications, serve_services
from outgate.clock import wall_ms
from outgate.control.accounts import NewKey, create_account
from outgate.control.configuration import ApiSettings
from outgate.control.gateway import AgentGateway
from outgate.control.hosts import ensure_host
from outgate.control.ids import IdMaker
from outgate.control.object_files import ObjectFiles
from outgate.control.secret_values import KeyRing
from outgate.control.services import Services
from outgate.model.desired import (
    BUILD_COMPLETE,
    DesiredPhase,
    DesiredState,
    DevboxActivity,
    DevboxDocument,
    HostReport,
    ObservedDevbox,
    ObservedPhase,
    PolicyDocument,
)
from outgate.model.snapshots import SnapshotPhase, SnapshotRemoval, SnapshotState
from outgate.store.database import Database
from outgate.store.migrate import load_migrations, migrate
from support.fake_commands import AGENT_URL, FakeCommands

HOST_TOKEN = "host-token-of-the-tests"  # noqa: S105 - of the tests


def listen_tcp() -> socket.socket:
    bound = socket.create_server(("127.0.0.1", 0), backlog=128)
    bound.setblocking(False)
    return bound


def listen_unix(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    bound.listen(128)
    bound.setblocking(False)
    return bound


def open_database(url: str) -> Database:
    database = Database.open(url)
    migrate(database.writer, load_migrations())
    return database


def make_services(
    directory: Path, database: Database, gateway: AgentGateway, settings: ApiSettings | None = None
) -> Services:
    """Services as the api process makes them, with a key of their own."""
    objects = ObjectFiles(directory / "objects")
    objects.prepare()
    return Services(settings or ApiSettings(), database, gateway, KeyRing.generate(), objects)


class FakeGateway(FakeCommands):
    """Runs commands with /bin/sh on this machine; remembers how often each execution was started.

    With ``runs_commands`` off every command ends at once, unrun: for tests that send generated ones.
    """

    def __init__(self, *, runs_commands: bool = True) -> None:
        super().__init__(runs_commands=runs_commands)
        self.snapshots: dict[str, SnapshotState] = {}
        self.snapshot_outcome = SnapshotState(SnapshotPhase.COMPLETE, size_bytes=4096)
        """What becomes of a snapshot as soon as it is asked for."""
        self.activity: dict[str, DevboxActivity] = {}

    async def start_snapshot(self, url: str, snapshot_id: str, devbox_id: str) -> SnapshotState | None:
        self._check(url, devbox_id)
        return self.snapshots.setdefault(snapshot_id, self.snapshot_outcome)

    async def read_snapshot(self, url: str, snapshot_id: str, *, wait_s: float) -> SnapshotState | None:
        self._check(url, "dbx_")
        if self.snapshots.get(snapshot_id) == SnapshotState(SnapshotPhase.IN_PROGRESS):
            await asyncio.sleep(min(wait_s, 0.05))
        return self.snapshots.get(snapshot_id)

    async def remove_snapshot(self, url: str, snapshot_id: str) -> SnapshotRemoval | None:
        self._check(url, "dbx_")
        self.snapshots.pop(snapshot_id, None)
        return SnapshotRemoval(is_removed=True)

    async def read_activity(self, url: str, devbox_id: str) -> DevboxActivity | None:
        self._check(url, devbox_id)
        return self.activity.get(devbox_id, DevboxActivity(0))


_REACHED = {
    DesiredPhase.RUNNING: ObservedPhase.RUNNING,
    DesiredPhase.SUSPENDED: ObservedPhase.SUSPENDED,
    DesiredPhase.SHUTDOWN: ObservedPhase.SHUTDOWN,
}


@dataclass
class FakeAgent:
    """Follows the desired state as the real agent does, over the real interface; its devboxes are only notes."""

    socket_path: Path
    token: str = HOST_TOKEN
    policies: dict[str, PolicyDocument] = field(default_factory=dict)
    devboxes: dict[str, DevboxDocument] = field(default_factory=dict)
    states: list[DesiredState] = field(default_factory=list)
    observe: Callable[[DevboxDocument], ObservedDevbox | None] | None = None
    enforce_delay_s: float = 0.0
    enforces: bool = True
    wait_s: float = 5.0
    url: str = AGENT_URL

    async def run(self) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket_path))
        headers = {"authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers, timeout=30) as client:
            revision = 0
            await self.report(client, 0)
            while True:
                query = {"after": revision, "wait_s": self.wait_s}
                answer = await client.get("/internal/v1/desired-state", params=query)
                if answer.status_code != 200:
                    await asyncio.sleep(0.05)
                    continue
                state = msgspec.json.decode(answer.content, type=DesiredState)
                self._follow(state)
                revision = state.revision
                await asyncio.sleep(self.enforce_delay_s)
                await self.report(client, revision, state)

    def _follow(self, state: DesiredState) -> None:
        self.states.append(state)
        if state.full:
            self.policies.clear()
            self.devboxes.clear()
        self.policies.update({policy.id: policy for policy in state.policies})
        self.devboxes.update({devbox.id: devbox for devbox in state.devboxes})
        for devbox_id in state.forgotten:
            self.devboxes.pop(devbox_id, None)

    async def report(self, client: httpx.AsyncClient, revision: int, state: DesiredState | None = None) -> None:
        observed = [] if state is None else [self._observed(devbox) for devbox in state.devboxes]
        report = HostReport(
            boot_id="boot",
            url=self.url,
            enforced=revision if self.enforces else 0,
            devboxes=tuple(devbox for devbox in observed if devbox is not None),
        )
        answer = await client.post("/internal/v1/report", content=msgspec.json.encode(report))
        assert answer.status_code in (200, 503), answer.text

    def _observed(self, devbox: DevboxDocument) -> ObservedDevbox | None:
        if self.observe is not None:
            return self.observe(devbox)
        if devbox.build is not None and devbox.phase is DesiredPhase.RUNNING:
            return ObservedDevbox(devbox.id, ObservedPhase.SHUTDOWN, wall_ms(), shutdown_reason=BUILD_COMPLETE)
        return ObservedDevbox(devbox.id, _REACHED[devbox.phase], wall_ms(), devbox.generation)


class ApiServer:
    """The api in a thread of its own, and one fake agent beside it (unless told otherwise)."""

    def __init__(
        self,
        directory: Path,
        settings: ApiSettings | None = None,
        *,
        url: str | None = None,
        runs_commands: bool = True,
    ) -> None:
        self.database_url = url or f"sqlite:///{directory / 'outgate.db'}"
        self.database = open_database(self.database_url)
        self.gateway = FakeGateway(runs_commands=runs_commands)
        self.services = make_services(directory, self.database, self.gateway, settings)
        ensure_host(self.services, "local", HOST_TOKEN, wall_ms())
        self.socket_path = directory / "api.sock"
        self.agent = FakeAgent(self.socket_path)
        self.has_agent = True
        self.applications = Applications.make()
        self.besides: Callable[[], Sequence[Coroutine[Any, Any, None]]] = tuple
        """What else the api's loop runs meanwhile."""
        self._public = listen_tcp()
        self._internal = listen_unix(self.socket_path)
        self.port: int = self._public.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._serving.wait(10)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.database.close()
        self._public.close()
        self._internal.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the test's thread
            self._error = error
            self._serving.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        agent = asyncio.ensure_future(self.agent.run()) if self.has_agent else None
        try:
            listeners = self.applications.listen(self.services, [self._public], [self._internal])
            await serve_services(self.services, listeners, self._stop, self._serving.set, besides=self.besides())
        finally:
            if agent is not None:
                agent.cancel()
                with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
                    await agent

    def call(self, function: Callable[[], None]) -> None:
        """Run ``function`` on the server's loop."""
        self._loop.call_soon_threadsafe(function)

    def new_account(self, name: str) -> NewKey:
        return create_account(self.database, IdMaker(), name, wall_ms())

    @contextlib.contextmanager
    def client(self, api_key: str) -> Iterator[httpx.Client]:
        headers = {"authorization": f"Bearer {api_key}"}
        with httpx.Client(base_url=self.base_url, headers=headers, timeout=40) as client:
            yield client
