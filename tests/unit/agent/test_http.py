"""The agent's interface, and the api's client of it, over a unix socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from outgate.agent.executions import Executions
from outgate.agent.files import Files
from outgate.agent.http import build_app
from outgate.agent.serving import bind_unix, serve_unix
from outgate.agent.snapshots import Snapshots
from outgate.client.agent_gateway import AgentHttpGateway
from outgate.client.agent_streams import AgentUnreachableError
from outgate.client.transport import unix_url
from outgate.model.desired import ExecutionRequest, HostReport
from outgate.runtime.base import ObservedSandbox, SandboxPhase
from support.agent_world import FakeRuntime
from support.sim_time import run_simulated

TOKEN = "the-token"  # noqa: S105 - made up
REPORT = HostReport(boot_id="b", url="unix:/x", enforced=7)


def make_runtime() -> FakeRuntime:
    runtime = FakeRuntime([], lambda _spec: None)
    runtime.sandboxes["a"] = ObservedSandbox("a", 1, SandboxPhase.RUNNING, 1, 0)
    runtime.endless.add("sleep")
    return runtime


@asynccontextmanager
async def open_client(runtime: FakeRuntime, token: str = TOKEN) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(
        Executions(runtime),
        lambda: REPORT,
        TOKEN,
        snapshots=Snapshots(runtime),
        files=Files(runtime),
    )
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://agent", headers=headers
    ) as client:
        yield client


def test_without_the_token_nothing_is_looked_at() -> None:
    runtime = make_runtime()

    async def scenario() -> None:
        for token in ("", "the-toke", "the-token2"):
            async with open_client(runtime, token=token) as client:
                answer = await client.post("/v1/devboxes/a/executions", content=b"{")
                assert answer.status_code == 401
                assert (await client.get("/v1/status")).status_code == 401
                assert (await client.get("/nowhere")).status_code == 401

    asyncio.run(scenario())
    assert runtime.journal == []


def test_an_execution_is_started_once_read_and_killed() -> None:
    runtime = make_runtime()

    async def scenario() -> None:
        async with open_client(runtime) as client:
            body = msgspec.json.encode(ExecutionRequest("e1", "sleep"))
            for _ in range(2):
                started = (await client.post("/v1/devboxes/a/executions", content=body)).json()
                assert started["status"] == "running"
                assert "exit_status" not in started
            read = (await client.get("/v1/devboxes/a/executions/e1?wait_s=5&last_n=10")).json()
            assert (read["status"], read["stdout"]) == ("running", "stdout of e1\n")
            killed = (await client.post("/v1/devboxes/a/executions/e1/kill", content=b"{}")).json()
            assert (killed["status"], killed["exit_status"]) == ("completed", 137)

    run_simulated(scenario())
    assert runtime.journal == ["exec a sleep"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/devboxes/nobody/executions", b'{"execution_id":"e","command":"true"}', 404),
        ("GET", "/v1/devboxes/a/executions/nothing", b"", 404),
        ("POST", "/v1/devboxes/a/executions/nothing/kill", b"{}", 404),
        ("POST", "/v1/devboxes/a/executions", b"{", 400),
        ("POST", "/v1/devboxes/a/executions", b'{"execution_id":"e"}', 400),
        ("POST", "/v1/devboxes/a/executions", b'{"execution_id":"e","command":"true","user":"root"}', 400),
        ("POST", "/v1/devboxes/a/executions", b"x" * (2 * 1024 * 1024 + 1), 400),
        ("GET", "/v1/devboxes/a/executions/e?wait_s=long", b"", 400),
        ("GET", "/v1/devboxes/a/executions/e?wait_s=nan", b"", 400),
        ("GET", "/v1/devboxes/a/executions/e?last_n=1e99", b"", 400),
        ("DELETE", "/v1/devboxes/a/executions/e", b"", 405),
    ],
)
def test_what_cannot_be_answered_says_why(method: str, path: str, body: bytes, status: int) -> None:
    async def scenario() -> None:
        async with open_client(make_runtime()) as client:
            answer = await client.request(method, path, content=body)
            assert answer.status_code == status
            if status != 405:
                assert answer.json()["message"]

    asyncio.run(scenario())


def test_the_status_is_read() -> None:
    async def scenario() -> None:
        async with open_client(make_runtime()) as client:
            status = msgspec.json.decode((await client.get("/v1/status")).content, type=HostReport)
            assert status == REPORT

    asyncio.run(scenario())


@asynccontextmanager
async def serving(path: Path, runtime: FakeRuntime) -> AsyncIterator[AgentHttpGateway]:
    gateway = AgentHttpGateway(TOKEN)
    with bind_unix(path) as bound:
        app = build_app(Executions(runtime), lambda: REPORT, TOKEN, snapshots=Snapshots(runtime), files=Files(runtime))
        task = asyncio.ensure_future(serve_unix(app, bound))
        try:
            yield gateway
        finally:
            await gateway.aclose()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


def test_the_gateway_speaks_to_a_real_socket(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def scenario() -> None:
        async with serving(path, make_runtime()) as gateway:
            assert path.stat().st_mode & 0o777 == 0o600
            url = unix_url(path)
            started = await gateway.start_execution(url, "a", ExecutionRequest("e1", "true"))
            assert started is not None
            assert (started.status, started.exit_status) == ("completed", 0)
            read = await gateway.read_execution(url, "a", "e1", wait_s=1, last_n=5)
            assert read is not None
            assert read.stdout == "stdout of e1\n"
            assert await gateway.start_execution(url, "nobody", ExecutionRequest("e1", "true")) is None
            assert await gateway.read_execution(url, "a", "e2", wait_s=0, last_n=5) is None
            assert await gateway.kill_execution(url, "a", "../../v1/status", is_group=True) is None

    asyncio.run(scenario())


def test_an_agent_that_is_not_there_or_does_not_know_us_is_unreachable(tmp_path: Path) -> None:
    async def scenario() -> None:
        gateway = AgentHttpGateway(TOKEN)
        with pytest.raises(AgentUnreachableError):
            await gateway.read_execution(unix_url(tmp_path / "no.sock"), "a", "e", wait_s=0, last_n=1)
        await gateway.aclose()
        async with serving(tmp_path / "agent.sock", make_runtime()):
            stranger = AgentHttpGateway("another token")
            with pytest.raises(AgentUnreachableError, match="401"):
                await stranger.kill_execution(unix_url(tmp_path / "agent.sock"), "a", "e", is_group=True)
            await stranger.aclose()

    asyncio.run(scenario())
    assert issubclass(AgentUnreachableError, OSError)
