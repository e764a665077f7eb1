"""The official Python client through a devbox's whole life, blocking and asyncio."""

import asyncio

import pytest
from runloop_api_client import AsyncRunloopSDK, BadRequestError, NotFoundError, Runloop, RunloopSDK
from runloop_api_client.types.shared_params import LaunchParameters

from outgate.model.desired import CodeMountDocument, FileMountDocument, ObjectForm, ObjectMountDocument
from support.api_server import ApiServer

LIFE: LaunchParameters = {
    "resource_size_request": "CUSTOM_SIZE",
    "custom_cpu_cores": 2,
    "custom_gb_memory": 4,
    "custom_disk_size": 8,
    "keep_alive_time_seconds": 600,
    "launch_commands": ["true"],
    "available_ports": [8000],
    "architecture": "x86_64",
    "provisioning_tier": "standard",
    "user_parameters": {"username": "root", "uid": 0},
    "lifecycle": {
        "after_idle": {"idle_time_seconds": 600, "on_idle": "suspend"},
        "lifecycle_hooks": {"suspend_commands": ["sync"], "suspend_deadline_ms": 1000},
        "resume_triggers": {"http": True},
    },
}


def test_the_object_layer_creates_with_everything(sdk: RunloopSDK, server: ApiServer) -> None:
    policy = sdk.network_policy.create(name="p")
    sdk.secret.create(name="PASSWORD", value="pa55")
    archive = sdk.storage_object.upload_from_bytes(b"x", name="a.tgz", content_type="tgz")
    box = sdk.devbox.create(
        name="box",
        metadata={"k": "v"},
        environment_variables={"A": "b"},
        secrets={"DB_PASS": "PASSWORD"},
        entrypoint="sleep 100",
        launch_parameters={**LIFE, "network_policy_id": policy.id},
        file_mounts={"/etc/motd": "hello"},
        code_mounts=[{"repo_owner": "o", "repo_name": "r"}],
        mounts=[
            {"type": "file_mount", "target": "notes", "content": "text"},
            {"type": "object_mount", "object_id": archive.id, "object_path": "/opt/data"},
            {"type": "code_mount", "repo_owner": "o", "repo_name": "s", "token": "t", "git_ref": "v1"},
        ],
    )
    view = box.get_info()
    assert (view.status, view.name, view.metadata) == ("running", "box", {"k": "v"})
    shown = view.launch_parameters.to_dict()
    assert {name: shown[name] for name in LIFE} == LIFE
    assert shown["network_policy_id"] == policy.id
    told = server.agent.devboxes[box.id]
    assert told.environment == {"A": "b", "DB_PASS": "pa55"}
    assert told.mounts == (
        FileMountDocument("/etc/motd", "hello"),
        CodeMountDocument("https://github.com/o/r.git", "r"),
        FileMountDocument("notes", "text"),
        ObjectMountDocument(archive.id, "/opt/data", ObjectForm.TGZ),
        CodeMountDocument("https://github.com/o/s.git", "s", "v1", "t"),
    )
    assert (told.cpu_cores, told.memory_mib, told.username) == (2.0, 4096, "root")
    box.shutdown()


def test_the_object_layer_suspends_and_resumes(sdk: RunloopSDK) -> None:
    box = sdk.devbox.create()
    assert box.suspend().status == "suspended"
    assert box.await_suspended().status == "suspended"
    assert box.get_info().status == "suspended"
    assert box.resume().status == "running"
    box.suspend()
    box.await_suspended()
    box.resume_async()
    assert box.get_info().status in ("suspended", "running", "starting", "provisioning"), "what clients accept then"
    assert box.await_running().status == "running"
    box.keep_alive()
    with pytest.raises(BadRequestError, match="only a suspended devbox can be resumed"):
        box.resume()
    assert box.shutdown().status == "shutdown"
    with pytest.raises(BadRequestError, match="only a running devbox can be suspended"):
        box.suspend()


def test_the_object_layer_with_asyncio(server: ApiServer, api_key: str) -> None:
    async def scenario() -> None:
        async with AsyncRunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
            box = await sdk.devbox.create(launch_parameters=LIFE)
            await box.suspend()
            assert (await box.await_suspended()).status == "suspended"
            assert (await box.resume()).status == "running"
            await box.keep_alive()
            assert (await box.shutdown()).status == "shutdown"

    asyncio.run(scenario())


def test_the_generated_client(client: Runloop) -> None:
    box = client.devboxes.create_and_await_running()
    client.devboxes.suspend(box.id)
    suspended = client.devboxes.await_suspended(box.id)
    assert suspended.status == "suspended"
    assert [one.id for one in client.devboxes.list(status="suspended")] == [box.id]
    use = client.devboxes.retrieve_resource_usage(box.id)
    assert (use.id, use.status, use.end_time_ms) == (box.id, "suspended", None)
    client.devboxes.resume(box.id)
    assert client.devboxes.await_running(box.id).status == "running"
    assert client.devboxes.keep_alive(box.id) == {}
    assert client.devboxes.shutdown(box.id, force="true").shutdown_reason == "api_shutdown"
    with pytest.raises(NotFoundError):
        client.devboxes.suspend("dbx_" + "a" * 21)
    with pytest.raises(BadRequestError, match="gateways would have no effect"):
        client.devboxes.create(gateways={"A": {"gateway": "g", "secret": "s"}})


def test_evictions_are_watched(client: Runloop) -> None:
    box = client.devboxes.create(launch_parameters={"keep_alive_time_seconds": 50})
    with client.devboxes.watch_evictions() as events:
        event = next(iter(events))
    assert (event.devbox_id, event.eviction_deadline_ms) == (box.id, box.create_time_ms + 50_000)
