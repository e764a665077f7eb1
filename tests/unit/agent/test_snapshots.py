"""Snapshots on a host: begun once, asked about, cleared away; in the agent and over its interface."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette

from outgate.agent import snapshots as module
from outgate.agent.serving import bind_unix, serve_unix
from outgate.agent.snapshot_routes import snapshot_routes
from outgate.agent.snapshots import Snapshots
from outgate.client.agent_gateway import AgentHttpGateway
from outgate.client.transport import unix_url
from outgate.model.snapshots import SnapshotPhase, SnapshotRemoval, SnapshotState
from outgate.runtime.base import ObservedSandbox, SandboxError, SandboxPhase
from support.agent_world import FakeRuntime

COMPLETE = SnapshotState(SnapshotPhase.COMPLETE, size_bytes=4096)
IN_PROGRESS = SnapshotState(SnapshotPhase.IN_PROGRESS)


def make_runtime() -> FakeRuntime:
    runtime = FakeRuntime([], lambda _spec: None)
    runtime.sandboxes["dbx_1"] = ObservedSandbox("dbx_1", 1, SandboxPhase.RUNNING, 1, 0)
    return runtime


def test_a_snapshot_is_begun_once_and_outlives_the_agent() -> None:
    async def scenario() -> None:
        runtime = make_runtime()
        snapshots = Snapshots(runtime)
        runtime.seal_turn.clear()
        assert await snapshots.read("snp_1", wait_s=0) is None
        assert [await snapshots.start("snp_1", "dbx_1") for _ in range(2)] == [IN_PROGRESS, IN_PROGRESS]
        assert await snapshots.read("snp_1", wait_s=0.01) == IN_PROGRESS
        assert not await snapshots.remove("snp_1")
        waiting = asyncio.ensure_future(snapshots.read("snp_1", wait_s=30))
        await asyncio.sleep(0)
        runtime.seal_turn.set()
        assert await waiting == COMPLETE
        assert await Snapshots(runtime).read("snp_1", wait_s=0) == COMPLETE
        assert await Snapshots(runtime).start("snp_1", "dbx_1") == COMPLETE
        assert await snapshots.remove("snp_1")
        assert runtime.images == {}
        assert await snapshots.read("snp_1", wait_s=0) is None
        assert await snapshots.remove("snp_1")

    asyncio.run(scenario())


def test_one_that_an_agent_died_over_is_not_known_to_the_next() -> None:
    async def scenario() -> None:
        runtime = make_runtime()
        snapshots = Snapshots(runtime)
        runtime.seal_turn.clear()
        await snapshots.start("snp_1", "dbx_1")
        await asyncio.sleep(0)
        await snapshots.aclose()
        assert await Snapshots(runtime).read("snp_1", wait_s=0) is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (SandboxError("No room."), "No room."),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (KeyError("x"), "Outgate made a mistake; its log has the details."),
    ],
)
def test_every_way_to_fail_ends_the_snapshot(monkeypatch: pytest.MonkeyPatch, error: Exception, detail: str) -> None:
    async def fail(_self: FakeRuntime, _devbox_id: str, _image_name: str) -> int:
        await asyncio.sleep(0)
        raise error

    async def scenario() -> None:
        monkeypatch.setattr(FakeRuntime, "seal", fail)
        snapshots = Snapshots(make_runtime())
        await snapshots.start("snp_1", "dbx_1")
        failed = SnapshotState(SnapshotPhase.ERROR, detail=detail)
        assert await snapshots.read("snp_1", wait_s=5) == failed
        assert await snapshots.start("snp_1", "dbx_1") == failed
        assert await snapshots.remove("snp_1")
        assert await snapshots.read("snp_1", wait_s=0) is None

    asyncio.run(scenario())


def test_what_is_remembered_and_under_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAILURES_MAX", 3)
    monkeypatch.setattr(module, "UNDER_WAY_MAX", 2)

    async def scenario() -> None:
        runtime = make_runtime()
        snapshots = Snapshots(runtime)
        for number in range(5):
            await snapshots.start(f"snp_{number}", "dbx_absent")
            await snapshots.read(f"snp_{number}", wait_s=5)
        known = [await snapshots.read(f"snp_{number}", wait_s=0) is not None for number in range(5)]
        assert known == [False, False, True, True, True]
        runtime.seal_turn.clear()
        phases = [(await snapshots.start(f"snp_more{number}", "dbx_1")).phase for number in range(3)]
        assert phases == ["in_progress", "in_progress", "error"]
        await snapshots.aclose()

    asyncio.run(scenario())


@asynccontextmanager
async def serving(path: Path, runtime: FakeRuntime) -> AsyncIterator[AgentHttpGateway]:
    gateway = AgentHttpGateway("token")
    with bind_unix(path) as bound:
        task = asyncio.ensure_future(serve_unix(Starlette(routes=snapshot_routes(Snapshots(runtime))), bound))
        try:
            yield gateway
        finally:
            await gateway.aclose()
            task.cancel()
            await asyncio.wait((task,))


def test_the_same_over_the_agents_interface(tmp_path: Path) -> None:
    async def scenario() -> None:
        runtime, path = make_runtime(), tmp_path / "agent.sock"
        url = unix_url(path)
        async with serving(path, runtime) as gateway:
            assert await gateway.read_snapshot(url, "snp_1", wait_s=0) is None
            runtime.seal_turn.clear()
            assert await gateway.start_snapshot(url, "snp_1", "dbx_1") == IN_PROGRESS
            assert await gateway.remove_snapshot(url, "snp_1") == SnapshotRemoval(is_removed=False)
            runtime.seal_turn.set()
            assert await gateway.read_snapshot(url, "snp_1", wait_s=5) == COMPLETE
            await gateway.start_snapshot(url, "snp/../2", "dbx_absent")
            failed = await gateway.read_snapshot(url, "snp/../2", wait_s=5)
            assert failed is None  # such an id meets no route
            assert await gateway.remove_snapshot(url, "snp_1") == SnapshotRemoval(is_removed=True)
            assert await gateway.read_snapshot(url, "snp_1", wait_s=0) is None

    asyncio.run(scenario())
