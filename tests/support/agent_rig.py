"""The real agent process in the little internet, with real kernel, gate and runtime, and a made-up api."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outgate.agent.serving import bind_unix, serve_unix
from outgate.client.agent_gateway import AgentHttpGateway
from outgate.client.transport import PeerUnreachableError, unix_url
from outgate.dataplane.layout import NetworkLayout, choose_layout
from outgate.model.desired import ExecutionRequest, ExecutionState, FlowBatch, HostReport
from outgate.server.host_network import POOL_FILE
from outgate.server.places import ensure_host_token
from outgate.settings import Settings, load_settings
from support.agent_world import FakeApi
from support.internet import EVERYTHING, Internet

HOST_ADDRESS = "45.45.50.1"
OTHER_ADDRESS = "45.45.51.1"


@dataclass
class AgentRig:
    """One agent process after another, on one state directory."""

    internet: Internet
    settings: Settings
    api: FakeApi
    gateway: AgentHttpGateway
    log: Path
    process: subprocess.Popen[bytes] | None = None
    _executions: int = field(default=0)

    def start(self, module: str = "outgate.server.agent_process", *arguments: str) -> None:
        """Start an agent: production's, or a module of the tests that puts the same one together."""
        environment = {
            **os.environ,
            "OUTGATE_STATE_DIR": str(self.settings.state_dir),
            "OUTGATE_UPSTREAM_DNS": self.internet.resolver,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        command = self.internet.command(sys.executable, "-m", module, "--parent", str(os.getpid()), *arguments)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log)

    def kill(self) -> None:
        """SIGKILL the agent, and return when it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, and how it ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 15)

    def layout(self) -> NetworkLayout:
        """Names and addresses of what the agent made; known once it has chosen its pool."""
        pool = IPv4Network((self.settings.agent_dir / POOL_FILE).read_text("ascii").strip())
        return choose_layout(self.settings.instance_id, (), network4=pool)

    def gate_pids(self) -> list[int]:
        """The gates that this agent started."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(text) for text in path.read_text().split()] if path.exists() else []
        return [pid for pid in pids if b"outgate.dataplane.gate" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    async def run(self, devbox_id: str, command: str) -> ExecutionState:
        """Run ``command`` in the devbox to its end."""
        self._executions += 1
        url, execution_id = unix_url(self.settings.agent_socket), f"exec-{self._executions}"
        state = await self.gateway.start_execution(url, devbox_id, ExecutionRequest(execution_id, command))
        assert state is not None, "no such devbox"
        while state.status != "completed":
            state = await self.gateway.read_execution(url, devbox_id, execution_id, wait_s=20, last_n=100)
            assert state is not None
        return state

    async def until(self, condition: Callable[[], object], *, timeout_s: float = 40) -> None:
        """Until ``condition`` holds; AssertionError with the end of the log when it never does."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not condition():
            assert loop.time() < deadline_s, self.log.read_text("utf-8", "replace")[-4000:]
            await asyncio.sleep(0.005)

    async def until_phase(self, devbox_id: str, phase: str) -> None:
        await self.until(lambda: (seen := self.api.observed.get(devbox_id)) is not None and seen.phase.value == phase)

    async def until_enforced(self, revision: int) -> None:
        await self.until(lambda: self.api.enforced >= revision)

    def namespaces(self) -> set[str]:
        """Names of this instance's network namespaces."""
        return {path.name for path in Path("/run/netns").glob(f"outgate-{self.settings.instance_id}*")}


def _api_app(api: FakeApi) -> Starlette:
    async def desired_state(request: Request) -> Response:
        query = request.query_params
        try:
            state = await api.fetch_desired_state(int(query["after"]), float(query["wait_s"]))
        except PeerUnreachableError:
            return Response(status_code=503)
        # Not before: a wait that had begun would bring what is put a moment later.
        await asyncio.sleep(api.answer_s)
        return Response(msgspec.json.encode(state) if api.nonsense is None else api.nonsense)

    async def report(request: Request) -> Response:
        await asyncio.sleep(api.answer_s)
        try:
            await api.report(msgspec.json.decode(await request.body(), type=HostReport))
        except PeerUnreachableError:
            return Response(status_code=503)
        return Response(b"{}")

    async def store_flows(request: Request) -> Response:
        await api.store_flows(msgspec.json.decode(await request.body(), type=FlowBatch))
        return Response(b"{}")

    async def read_object(request: Request) -> Response:
        data = api.objects.get(request.path_params["object_id"])
        return Response(status_code=404) if data is None else Response(data)

    return Starlette(
        routes=[
            Route("/internal/v1/objects/{object_id}", read_object),
            Route("/internal/v1/desired-state", desired_state),
            Route("/internal/v1/report", report, methods=["POST"]),
            Route("/internal/v1/flows", store_flows, methods=["POST"]),
        ]
    )


@asynccontextmanager
async def open_agent_rig() -> AsyncIterator[AgentRig]:
    """An internet with ``allowed.example`` and ``other.example``, an api, and no agent yet. Leaves nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="outgate-agent-"))
    settings = _make_directories(folder)
    rig: AgentRig | None = None
    try:
        with Internet() as internet, bind_unix(settings.api_socket) as bound:
            internet.add_host("allowed.example", addresses=(HOST_ADDRESS,), services=EVERYTHING)
            internet.add_host("other.example", addresses=(OTHER_ADDRESS,), services=EVERYTHING)
            api = FakeApi()
            gateway = AgentHttpGateway(ensure_host_token(settings))
            serving = asyncio.ensure_future(serve_unix(_api_app(api), bound))
            rig = AgentRig(internet, settings, api, gateway, folder / "agent.log")
            try:
                yield rig
            finally:
                if rig.process is not None and rig.process.poll() is None:
                    rig.kill()
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving
                await gateway.aclose()
                await asyncio.to_thread(_tear_down, internet, settings)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(settings.run_dir, ignore_errors=True)


def _make_directories(folder: Path) -> Settings:
    folder.chmod(0o711)
    settings = load_settings(state_dir=folder / "state")
    settings.state_dir.mkdir(mode=0o711)
    settings.run_dir.mkdir(mode=0o711, parents=True)
    return settings


def _tear_down(internet: Internet, settings: Settings) -> None:
    code = (
        "from outgate.server.teardown import teardown_locked; from outgate.settings import load_settings;"
        "teardown_locked(load_settings())"
    )
    environment = {**os.environ, "OUTGATE_STATE_DIR": str(settings.state_dir)}
    subprocess.run(internet.command(sys.executable, "-c", code), env=environment, check=True, timeout=60)
