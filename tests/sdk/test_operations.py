"""Every operation that the official clients' object layers need: described, and answered well when they call it.

What was called is read from the server's side: each request's route and the version of HTTP that it came by.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import pytest
from runloop_api_client import RunloopSDK
from runloop_api_client.lib.polling import PollingConfig
from runloop_api_client.sdk import Devbox
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outgate.control.configuration import ApiSettings
from outgate.model.flow import HostContext
from outgate.model.names import DomainName
from support.api_server import ApiServer
from support.js_client import needs_js, run_js

POLICIES: Final = """
POST /v1/network-policies
GET /v1/network-policies
GET /v1/network-policies/{id}
POST /v1/network-policies/{id}
POST /v1/network-policies/{id}/delete
"""
DEVBOXES: Final = """
POST /v1/devboxes
POST /v1/devboxes/create_and_await_running
GET /v1/devboxes
GET /v1/devboxes/{id}
POST /v1/devboxes/{id}
POST /v1/devboxes/{id}/wait_for_status
POST /v1/devboxes/{id}/suspend
POST /v1/devboxes/{id}/resume
POST /v1/devboxes/{id}/shutdown
POST /v1/devboxes/{id}/keep_alive
POST /v1/devboxes/{id}/enable_tunnel
POST /v1/devboxes/{id}/remove_tunnel
POST /v1/devboxes/{id}/create_ssh_key
POST /v1/devboxes/{id}/execute
POST /v1/devboxes/{id}/execute_async
POST /v1/devboxes/{id}/read_file_contents
POST /v1/devboxes/{id}/write_file_contents
POST /v1/devboxes/{id}/upload_file
POST /v1/devboxes/{id}/download_file
POST /v1/devboxes/{id}/snapshot_disk
POST /v1/devboxes/{id}/snapshot_disk_async
GET /v1/devboxes/{id}/logs
"""
EXECUTIONS: Final = """
GET /v1/devboxes/{devbox_id}/executions/{execution_id}
POST /v1/devboxes/{devbox_id}/executions/{execution_id}/wait_for_status
POST /v1/devboxes/{devbox_id}/executions/{execution_id}/kill
POST /v1/devboxes/{devbox_id}/executions/{execution_id}/send_std_in
GET /v1/devboxes/{devbox_id}/executions/{execution_id}/stream_stdout_updates
GET /v1/devboxes/{devbox_id}/executions/{execution_id}/stream_stderr_updates
"""
SNAPSHOTS: Final = """
GET /v1/devboxes/disk_snapshots
POST /v1/devboxes/disk_snapshots/{id}
POST /v1/devboxes/disk_snapshots/{id}/delete
GET /v1/devboxes/disk_snapshots/{id}/status
"""
BLUEPRINTS: Final = """
POST /v1/blueprints
GET /v1/blueprints
GET /v1/blueprints/{id}
POST /v1/blueprints/{id}/delete
GET /v1/blueprints/{id}/logs
"""
BESIDES: Final = """
POST /v1/devboxes/{id}/execute_sync
GET /v1/devboxes/{id}/usage
POST /v1/devboxes/{id}/create_pty_tunnel
GET /v1/blueprints/list_public
POST /v1/blueprints/preview
POST /v1/objects
GET /v1/objects
GET /v1/objects/{id}
POST /v1/objects/{id}/complete
GET /v1/objects/{id}/download
POST /v1/objects/{id}/delete
"""
"""Not of the object layer of policies, devboxes, blueprints and snapshots, but called around it."""
OBJECT_LAYER: Final = [*filter(None, (POLICIES + DEVBOXES + EXECUTIONS + SNAPSHOTS + BLUEPRINTS).split("\n"))]
OPERATIONS: Final = [*OBJECT_LAYER, *filter(None, BESIDES.split("\n"))]

SETTINGS: Final = ApiSettings(
    enforce_wait_s_max=1.0,
    ssh_host="ssh.runloop.test:22",
    context=HostContext(tunnel_domain=DomainName("tunnel.runloop.test")),
)
SOON: Final = PollingConfig(interval_seconds=0.05, max_attempts=200)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request as the server saw it. ``operation`` is its method and its route's path."""

    operation: str
    http_version: str
    status: int


@dataclass(slots=True)
class Recorder:
    """Notes what the application behind it answers."""

    app: ASGIApp
    answered: list[Answered] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and "route" in scope:
                operation = f"{scope['method']} {scope['route'].path}"
                self.answered.append(Answered(operation, scope["http_version"], message["status"]))
            await send(message)

        await self.app(scope, receive, note)


@pytest.fixture(scope="module")
def answered() -> list[Answered]:
    return []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, answered: list[Answered]) -> Iterator[ApiServer]:
    """A server whose answers are noted in ``answered``."""
    server = ApiServer(tmp_path_factory.mktemp("api"), SETTINGS)
    server.applications.public.add_middleware(Recorder, answered=answered)
    with server:
        yield server


def check_all_answered(answered: list[Answered], http_version: str) -> None:
    by_version = [one for one in answered if one.http_version == http_version]
    # A wait that takes longer than the server holds is no failure: the client asks again.
    failed = [one for one in by_version if one.status // 100 != 2 and not one.operation.endswith("/wait_for_status")]
    assert failed == []
    assert sorted(set(OPERATIONS) - {one.operation for one in by_version if one.status // 100 == 2}) == []


def test_all_are_described(server: ApiServer) -> None:
    assert len(OBJECT_LAYER) == 42, "what the two clients' object layers call"
    paths = httpx.get(f"{server.base_url}/openapi.json").json()["paths"]
    described = {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}
    assert sorted(set(OPERATIONS) - described) == []


def test_python_calls_them_all(server: ApiServer, api_key: str, answered: list[Answered], tmp_path: Path) -> None:
    with RunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
        policy = sdk.network_policy.create(name="p")
        assert sdk.network_policy.from_id(policy.id).get_info().id == policy.id
        policy.update(allowed_hostnames=["github.com"])
        assert len(sdk.network_policy.list()) == 1
        with sdk.devbox.create(launch_parameters={"network_policy_id": policy.id}) as devbox:
            use_commands(sdk, devbox)
            use_files(devbox, tmp_path)
            use_access(sdk, devbox)
            live(sdk, devbox)
            use_snapshots(sdk, devbox)
        use_blueprints(sdk)
        use_objects(sdk)
        policy.delete()
    check_all_answered(answered, "1.1")


def use_commands(sdk: RunloopSDK, devbox: Devbox) -> None:
    said: list[str] = []
    done = devbox.cmd.exec("echo out; echo err >&2", stdout=said.append, stderr=said.append)
    assert (done.exit_code, sorted("".join(said).split())) == (0, ["err", "out"])
    reader = devbox.cmd.exec_async("cat", attach_stdin=True)
    reader.send_std_in("typed")
    reader.close_std_in()
    assert reader.result().stdout() == "typed"
    endless = devbox.cmd.exec_async("sleep 60")
    endless.kill()
    assert endless.get_state().status == "completed"
    with pytest.deprecated_call():
        assert sdk.api.devboxes.execute_sync(devbox.id, command="exit 4").exit_status == 4
    assert sdk.api.devboxes.execute(devbox.id, command="exit 3").exit_status == 3
    assert devbox.logs(execution_id=done.execution_id).logs


def use_files(devbox: Devbox, directory: Path) -> None:
    devbox.file.write(file_path="a.txt", contents="text")
    assert devbox.file.read(file_path="a.txt") == "text"
    (directory / "b.bin").write_bytes(b"bytes")
    devbox.file.upload(path="b.bin", file=directory / "b.bin")
    assert devbox.file.download(path="b.bin") == b"bytes"


def use_access(sdk: RunloopSDK, devbox: Devbox) -> None:
    assert "PRIVATE KEY" in devbox.net.create_ssh_key().ssh_private_key
    assert sdk.api.devboxes.create_pty_tunnel(devbox.id).auth_token
    tunnel = devbox.net.enable_tunnel()
    assert devbox.get_tunnel() == tunnel
    devbox.net.remove_tunnel()
    assert devbox.get_tunnel() is None


def live(sdk: RunloopSDK, devbox: Devbox) -> None:
    assert sdk.api.devboxes.update(devbox.id, name="named").name == "named"
    devbox.keep_alive()
    devbox.suspend()
    assert devbox.await_suspended().status == "suspended"
    assert devbox.resume().status == "running"
    assert [one.id for one in sdk.devbox.list()] == [devbox.id]
    assert sdk.api.devboxes.retrieve_resource_usage(devbox.id).status == "running"
    other = sdk.api.devboxes.create()
    assert sdk.devbox.from_id(other.id).shutdown().status == "shutdown"


def use_snapshots(sdk: RunloopSDK, devbox: Devbox) -> None:
    snapshot = devbox.snapshot_disk(polling_config=SOON)
    assert snapshot.update(name="s").name == "s"
    at_once = sdk.api.devboxes.snapshot_disk(devbox.id)
    assert [one.id for one in sdk.snapshot.list()] == [at_once.id, snapshot.id]
    snapshot.delete()
    assert snapshot.get_info().status == "deleted"


def use_blueprints(sdk: RunloopSDK) -> None:
    blueprint = sdk.blueprint.create(name="b", polling_config=SOON)
    assert blueprint.get_info().status == "build_complete"
    assert [one.id for one in sdk.blueprint.list()] == [blueprint.id]
    assert blueprint.logs().blueprint_id == blueprint.id
    assert sdk.api.blueprints.list_public().blueprints == []
    with pytest.deprecated_call():
        assert sdk.api.blueprints.preview(name="b").dockerfile
    blueprint.delete()


def use_objects(sdk: RunloopSDK) -> None:
    made = sdk.storage_object.upload_from_bytes(b"x", name="o", content_type="binary")
    assert made.download_as_bytes() == b"x"
    assert made.refresh().state == "READ_ONLY"
    assert [one.id for one in sdk.storage_object.list()] == [made.id]
    made.delete()


@needs_js[0]
@needs_js[1]
def test_javascript_calls_them_all_over_http2(server: ApiServer, api_key: str, answered: list[Answered]) -> None:
    assert "# pass 1" in run_js("operations.test.mjs", server.base_url, api_key)
    check_all_answered(answered, "2")
