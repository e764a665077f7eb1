"""The official Python client with disk snapshots: generated client and object layer, blocking and asyncio."""

import asyncio

import pytest
import runloop_api_client
from runloop_api_client import AsyncRunloopSDK, Runloop, RunloopSDK
from runloop_api_client.lib.polling import PollingConfig

from outgate.model.snapshots import SnapshotPhase, SnapshotState
from support.api_server import ApiServer

SOON = PollingConfig(interval_seconds=0.1, max_attempts=100)


def test_the_object_layer(server: ApiServer, api_key: str) -> None:
    with RunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
        policy = sdk.network_policy.create(name="p", allowed_hostnames=["github.com"])
        with sdk.devbox.create(launch_parameters={"network_policy_id": policy.id}) as source:
            snapshot = source.snapshot_disk(name="s", commit_message="m", metadata={"k": "v"}, polling_config=SOON)
            info = snapshot.get_info()
            assert (info.status, info.error_message) == ("complete", None)
            assert info.snapshot is not None
            assert (info.snapshot.name, info.snapshot.commit_message) == ("s", "m")
            assert (info.snapshot.source_devbox_id, info.snapshot.size_bytes) == (source.id, 4096)
            assert (info.snapshot.metadata, info.snapshot.source_blueprint_id) == ({"k": "v"}, None)

            begun = source.snapshot_disk_async()
            assert begun.await_completed(polling_config=SOON).status == "complete"
            assert [one.id for one in sdk.snapshot.list(devbox_id=source.id)] == [begun.id, snapshot.id]
            assert [one.id for one in sdk.snapshot.list(metadata_key="nothing")] == []
            assert snapshot.update(name="t", metadata={}).name == "t"

        # It outlives its source, and hands on its policy.
        with snapshot.create_devbox(name="heir") as heir:
            view = heir.get_info()
            assert (view.status, view.snapshot_id) == ("running", snapshot.id)
            assert view.launch_parameters.network_policy_id == policy.id
            snapshot.delete()
            assert heir.get_info().status == "running"
        assert snapshot.get_info().status == "deleted"
        assert [one.id for one in sdk.snapshot.list()] == [begun.id]
        with sdk.devbox.create_from_snapshot(begun.id) as other:
            assert other.get_info().snapshot_id == begun.id
        with pytest.raises(runloop_api_client.BadRequestError, match="no snapshot"):
            sdk.devbox.create_from_snapshot(snapshot.id)


def test_the_generated_client(server: ApiServer, api_key: str) -> None:
    with Runloop(base_url=server.base_url, bearer_token=api_key) as client:
        box = client.devboxes.create_and_await_running()
        made = [client.devboxes.snapshot_disk(box.id, name=f"s{number}") for number in range(3)]
        assert all(view.size_bytes == 4096 for view in made)
        newest_first = [view.id for view in reversed(made)]
        assert [view.id for view in client.devboxes.disk_snapshots.list(limit=2)] == newest_first
        assert [view.id for view in client.devboxes.list_disk_snapshots(limit=2)] == newest_first
        client.devboxes.delete_disk_snapshot(made[0].id)
        with pytest.raises(runloop_api_client.NotFoundError):
            client.devboxes.disk_snapshots.delete(made[0].id)

        usual = server.gateway.snapshot_outcome
        server.gateway.snapshot_outcome = SnapshotState(SnapshotPhase.IN_PROGRESS)
        try:
            slow = client.devboxes.snapshot_disk_async(box.id)
            with pytest.raises(runloop_api_client.ConflictError, match="not complete"):
                client.devboxes.disk_snapshots.delete(slow.id)
            with pytest.raises(runloop_api_client.ConflictError, match="snapshot"):
                client.devboxes.shutdown(box.id)
            server.gateway.snapshots[slow.id] = SnapshotState(SnapshotPhase.ERROR, detail="No room.")
            with pytest.raises(runloop_api_client.RunloopError, match="No room"):
                client.devboxes.disk_snapshots.await_completed(slow.id, polling_config=SOON)
        finally:
            server.gateway.snapshot_outcome = usual
        client.devboxes.shutdown(box.id)
        with pytest.raises(runloop_api_client.ConflictError, match="is shutdown"):
            client.devboxes.snapshot_disk(box.id)


def test_asyncio(server: ApiServer, api_key: str) -> None:
    async def scenario() -> None:
        async with AsyncRunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
            async with await sdk.devbox.create() as source:
                snapshot = await source.snapshot_disk(name="s", polling_config=SOON)
                begun = await source.snapshot_disk_async()
                assert (await begun.await_completed(polling_config=SOON)).status == "complete"
            assert [one.id for one in await sdk.snapshot.list()] == [begun.id, snapshot.id]
            assert (await snapshot.update(metadata={"a": "b"})).metadata == {"a": "b"}
            async with await snapshot.create_devbox() as heir:
                assert (await heir.get_info()).snapshot_id == snapshot.id
            async with await sdk.devbox.create_from_snapshot(begun.id) as other:
                assert (await other.get_info()).status == "running"
            await snapshot.delete()
            assert (await snapshot.get_info()).status == "deleted"

    asyncio.run(scenario())
