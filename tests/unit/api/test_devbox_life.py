"""Suspending, resuming, idling, mounts and use over HTTP, with an agent that only pretends."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from outgate.api import devboxes
from outgate.clock import wall_ms
from outgate.control import evictions
from outgate.control.devbox_states import decode_devbox
from outgate.control.sweeper import EXPIRY_EVERY_S
from outgate.model.desired import (
    CodeMountDocument,
    DesiredPhase,
    DevboxActivity,
    FileMountDocument,
    ObjectForm,
    ObjectMountDocument,
)
from outgate.store.devboxes import DevboxRow, find_devbox, save_devbox
from support.api_server import ApiServer

DEVBOXES = "/v1/devboxes"


def create(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{DEVBOXES}/create_and_await_running", json=body)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def wait(client: httpx.Client, devbox_id: str, *statuses: str, timeout_s: float = 30) -> dict[str, Any]:
    body = {"statuses": statuses, "timeout_seconds": timeout_s}
    answer = client.post(f"{DEVBOXES}/{devbox_id}/wait_for_status", json=body)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def read(server: ApiServer, devbox_id: str) -> DevboxRow:
    account_id = server.agent.devboxes[devbox_id].account_id
    row = server.database.read_now(lambda tx: find_devbox(tx, account_id, devbox_id))
    assert row is not None
    return row


def make_due(server: ApiServer, devbox_id: str) -> int:
    """Let its time be up now, which it returns."""
    due_ms = wall_ms()
    row = replace(read(server, devbox_id), expire_time_ms=due_ms)
    server.database.write_now(lambda tx: save_devbox(tx, row))
    return due_ms


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def statuses(view: dict[str, Any]) -> list[str]:
    return [entry["status"] for entry in view["state_transitions"]]


def test_a_devbox_is_suspended_and_resumed(client: httpx.Client, server: ApiServer, policy_id: str) -> None:
    hooks = {"suspend_commands": ["sync"], "suspend_deadline_ms": 5000}
    launch = {"network_policy_id": policy_id, "lifecycle": {"lifecycle_hooks": hooks}}
    box = create(client, launch_parameters=launch, mounts=[{"type": "file_mount", "target": "a", "content": "b"}])
    path = f"{DEVBOXES}/{box['id']}"
    told = server.agent.devboxes[box["id"]]
    assert (told.suspend_commands, told.suspend_deadline_ms) == (("sync",), 5000)
    assert told.mounts == (FileMountDocument("a", "b"),)

    early = client.post(f"{path}/resume")
    assert (early.status_code, early.json()["code"]) == (400, "wrong_status")
    assert early.json()["message"] == f"Devbox {box['id']} is running; only a suspended devbox can be resumed."

    suspending = client.post(f"{path}/suspend", headers={"x-request-id": "s1", "content-type": "application/json"})
    assert suspending.json()["status"] == "suspending"
    assert wait(client, box["id"], "suspended", "failure", "shutdown")["status"] == "suspended"
    assert server.agent.devboxes[box["id"]].phase is DesiredPhase.SUSPENDED
    again = client.post(f"{path}/suspend", headers={"x-request-id": "s1", "content-type": "application/json"})
    assert (again.status_code, again.json()["status"]) == (200, "suspended"), "a repeated call is no new one"
    late = client.post(f"{path}/suspend")
    assert (late.status_code, late.json()["code"]) == (400, "wrong_status")

    in_use = client.post(f"/v1/network-policies/{policy_id}/delete")
    assert (in_use.status_code, in_use.json()["code"]) == (400, "policy_in_use")
    refused = client.post(f"{path}/execute", json={"command": "true", "command_id": "1"})
    assert "suspended" in refused.json()["message"]

    resumed = client.post(f"{path}/resume", json={}).json()
    assert resumed["status"] == "provisioning"
    assert client.get(path).json()["status"] in ("provisioning", "running")
    view = wait(client, box["id"], "running")
    assert statuses(view) == ["provisioning", "running", "suspending", "suspended", "resuming", "running"]
    told = server.agent.devboxes[box["id"]]
    assert (told.generation, told.mounts) == (2, ())
    client.post(f"{path}/suspend")
    wait(client, box["id"], "suspended")
    assert client.post(f"{path}/shutdown").json()["status"] == "shutdown"
    for verb in ("suspend", "resume"):
        assert client.post(f"{path}/{verb}").status_code == 400


@pytest.fixture
def slow(server: ApiServer) -> Iterator[ApiServer]:
    """An agent that never gets further than provisioning."""
    server.agent.observe = lambda _devbox: None
    yield server
    server.agent.observe = None


def test_a_devbox_that_starts_can_be_shut_down_but_not_suspended(client: httpx.Client, slow: ApiServer) -> None:
    box = client.post(DEVBOXES, json={}).json()
    path = f"{DEVBOXES}/{box['id']}"
    assert client.post(f"{path}/suspend").status_code == 400
    assert client.post(f"{path}/resume").status_code == 400
    assert client.post(f"{path}/shutdown").json()["status"] == "shutdown"


def test_a_flexible_devbox_is_queued_and_clients_never_see_that_as_an_end(
    client: httpx.Client, slow: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devboxes, "START_HOLD_S_MAX", 0.4)
    launch = {"provisioning_tier": "flex"}
    box = client.post(DEVBOXES, json={"launch_parameters": launch}).json()
    assert box["status"] == "queued"
    answer = client.post(f"{DEVBOXES}/create_and_await_running", json={"launch_parameters": launch})
    assert (answer.status_code, answer.json()["code"]) == (408, "wait_timeout")


@pytest.mark.parametrize("place", ["after_idle", "lifecycle"])
@pytest.mark.parametrize("on_idle", ["suspend", "shutdown"])
def test_an_idle_devbox_is_suspended_or_ended(client: httpx.Client, place: str, on_idle: str) -> None:
    after_idle = {"idle_time_seconds": 1, "on_idle": on_idle}
    launch = {"after_idle": after_idle} if place == "after_idle" else {"lifecycle": {"after_idle": after_idle}}
    box = create(client, launch_parameters={**launch, "keep_alive_time_seconds": 1})
    view = wait(client, box["id"], "suspended", "shutdown", timeout_s=30)
    assert (view["status"], view["shutdown_reason"]) == (
        ("suspended", None) if on_idle == "suspend" else ("shutdown", "idle")
    )


def test_a_devbox_with_work_is_not_idle(client: httpx.Client, server: ApiServer) -> None:
    idle_s = 600
    box = create(client, launch_parameters={"after_idle": {"idle_time_seconds": idle_s, "on_idle": "suspend"}})
    server.gateway.activity[box["id"]] = DevboxActivity(1)
    due_ms = make_due(server, box["id"])
    until(lambda: read(server, box["id"]).expire_time_ms >= due_ms + idle_s * 1000)
    assert client.get(f"{DEVBOXES}/{box['id']}").json()["status"] == "running"
    server.gateway.activity[box["id"]] = DevboxActivity(0, wall_ms() - idle_s * 1000)
    make_due(server, box["id"])
    wait(client, box["id"], "suspended")


def test_a_resumed_devbox_has_all_of_its_time_again(client: httpx.Client, server: ApiServer) -> None:
    keep_alive_s = 600
    box = create(client, launch_parameters={"keep_alive_time_seconds": keep_alive_s})
    client.post(f"{DEVBOXES}/{box['id']}/suspend")
    wait(client, box["id"], "suspended")
    due_ms = make_due(server, box["id"])
    time.sleep(2.5 * EXPIRY_EVERY_S)
    assert client.get(f"{DEVBOXES}/{box['id']}").json()["status"] == "suspended", "no time runs while it is suspended"
    client.post(f"{DEVBOXES}/{box['id']}/resume")
    wait(client, box["id"], "running")
    assert read(server, box["id"]).expire_time_ms >= due_ms + keep_alive_s * 1000
    make_due(server, box["id"])
    view = wait(client, box["id"], "shutdown")
    assert view["shutdown_reason"] == "keep_alive_timeout"


def test_what_is_about_to_end_is_told(
    client: httpx.Client, stranger: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evictions, "LOOK_EVERY_S", 0.2)
    box = create(client, launch_parameters={"keep_alive_time_seconds": 30})
    create(client)
    create(stranger, launch_parameters={"keep_alive_time_seconds": 30})
    with client.stream("GET", f"{DEVBOXES}/evictions/watch") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        event = json.loads(next(line for line in lines if line.startswith("data:")).removeprefix("data:"))
        assert event == {"devbox_id": box["id"], "eviction_deadline_ms": box["create_time_ms"] + 30_000}
        # The next news is that it was kept alive.
        client.post(f"{DEVBOXES}/{box['id']}/keep_alive")
        event = json.loads(next(line for line in lines if line.startswith("data:")).removeprefix("data:"))
        assert event["devbox_id"] == box["id"]
        assert event["eviction_deadline_ms"] > box["create_time_ms"] + 30_000


def test_watching_needs_a_key(server: ApiServer) -> None:
    assert httpx.get(f"{server.base_url}{DEVBOXES}/evictions/watch").status_code == 401


def test_use_is_counted_by_time_and_size(client: httpx.Client, server: ApiServer) -> None:
    box = create(client, launch_parameters={"resource_size_request": "MEDIUM"})
    account = server.agent.devboxes[box["id"]].account_id
    made = box["create_time_ms"]

    def age(tx: Any) -> None:
        row = find_devbox(tx, account, box["id"])
        assert row is not None
        # As if made 100 s ago, with 40 s of use behind it and 10 s in this run.
        save_devbox(tx, replace(row, create_time_ms=made - 100_000, run_ms=40_000, run_since_ms=made - 10_000))

    server.database.write_now(age)
    use = client.get(f"{DEVBOXES}/{box['id']}/usage").json()
    elapsed, active = use["total_elapsed_seconds"], use["total_active_seconds"]
    assert 100 <= elapsed < 160
    assert 50 <= active < 110
    assert active * 2 <= use["vcpu_seconds"] < active * 2 + 2
    assert active * 4 <= use["memory_gb_seconds"] < active * 4 + 4
    assert elapsed * 8 <= use["disk_gb_seconds"] < elapsed * 8 + 8
    assert (use["status"], use["end_time_ms"], use["start_time_ms"]) == ("running", None, made - 100_000)
    client.post(f"{DEVBOXES}/{box['id']}/shutdown")
    ended = client.get(f"{DEVBOXES}/{box['id']}/usage").json()
    assert ended["end_time_ms"] is not None
    assert client.get(f"{DEVBOXES}/{box['id']}/usage").json() == ended
    assert client.get(f"{DEVBOXES}/dbx_unknown/usage").status_code == 404


def upload(client: httpx.Client, content_type: str, data: bytes) -> str:
    made = client.post("/v1/objects", json={"name": "o", "content_type": content_type}).json()
    assert httpx.put(made["upload_url"], content=data, headers=made.get("upload_headers") or {}).status_code == 200
    assert client.post(f"/v1/objects/{made['id']}/complete").status_code == 200
    object_id: str = made["id"]
    return object_id


def test_mounts_reach_the_host_and_tokens_are_sealed_on_the_way(
    client: httpx.Client, stranger: httpx.Client, server: ApiServer
) -> None:
    archive, text = upload(client, "tgz", b"x"), upload(client, "text", b"y")
    code = {"repo_owner": "o", "repo_name": "r.x", "token": "t0ken", "git_ref": "v1", "install_command": "make"}
    body: dict[str, Any] = {
        "file_mounts": {"~/a": "1"},
        "code_mounts": [code],
        "mounts": [
            {"type": "object_mount", "object_id": archive, "object_path": "/opt/d/"},
            {"type": "object_mount", "object_id": text, "object_path": "t.txt"},
            {"type": "code_mount", "repo_owner": "o", "repo_name": "s"},
        ],
    }
    box = create(client, **body)
    assert server.agent.devboxes[box["id"]].mounts == (
        FileMountDocument("a", "1"),
        CodeMountDocument("https://github.com/o/r.x.git", "r.x", "v1", "t0ken", "make"),
        ObjectMountDocument(archive, "/opt/d/", ObjectForm.TGZ),
        ObjectMountDocument(text, "t.txt", ObjectForm.FILE),
        CodeMountDocument("https://github.com/o/s.git", "s"),
    )
    row = server.database.read_now(lambda tx: find_devbox(tx, server.agent.devboxes[box["id"]].account_id, box["id"]))
    assert row is not None
    assert "t0ken" not in row.document
    assert decode_devbox(row.document).mounts[0] == FileMountDocument("a", "1")
    refused = stranger.post(DEVBOXES, json={"mounts": body["mounts"][:1]})
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_object")
    unfinished = client.post("/v1/objects", json={"name": "u", "content_type": "text"}).json()["id"]
    mount = {"type": "object_mount", "object_id": unfinished, "object_path": "u"}
    refused = client.post(DEVBOXES, json={"mounts": [mount]})
    assert (refused.status_code, refused.json()["code"]) == (400, "object_not_ready")


def test_secrets_become_environment(client: httpx.Client, stranger: httpx.Client, server: ApiServer) -> None:
    assert client.post("/v1/secrets", json={"name": "PASSWORD", "value": "pa55"}).status_code == 200
    box = create(client, secrets={"DB_PASS": "PASSWORD"}, environment_variables={"A": "b"})
    told = server.agent.devboxes[box["id"]]
    assert (told.environment, told.secrets) == ({"A": "b", "DB_PASS": "pa55"}, {})
    row = server.database.read_now(lambda tx: find_devbox(tx, told.account_id, box["id"]))
    assert row is not None
    assert "pa55" not in row.document
    assert stranger.post(DEVBOXES, json={"secrets": {"DB_PASS": "PASSWORD"}}).status_code == 400


@pytest.fixture
def small(server: ApiServer) -> Iterator[ApiServer]:
    """A host that says what it has."""
    with server.database.writer.begin() as tx:
        before = tx.exec_driver_sql("SELECT architecture, cpu_cores, memory_mib FROM hosts").one()
        tx.exec_driver_sql("UPDATE hosts SET architecture = 'x86_64', cpu_cores = 4, memory_mib = 7900")
    yield server
    with server.database.writer.begin() as tx:
        tx.exec_driver_sql("UPDATE hosts SET architecture = ?, cpu_cores = ?, memory_mib = ?", tuple(before))


@pytest.mark.parametrize(
    ("launch", "field", "message"),
    [
        ({"architecture": "arm64"}, "architecture", "No host that could run this devbox is arm64; there is x86_64."),
        (
            {"resource_size_request": "CUSTOM_SIZE", "custom_cpu_cores": 6},
            "custom_cpu_cores",
            "6 cores are more than a host has; the largest has 4.",
        ),
        (
            {"resource_size_request": "CUSTOM_SIZE", "custom_gb_memory": 8},
            "custom_gb_memory",
            "8 GiB are more than a host has; the largest has 7.7 GiB.",
        ),
    ],
)
def test_what_no_host_has_is_refused(
    client: httpx.Client, small: ApiServer, launch: dict[str, Any], field: str, message: str
) -> None:
    answer = client.post(DEVBOXES, json={"launch_parameters": launch})
    assert (answer.status_code, answer.json()["field"]) == (400, f"launch_parameters.{field}")
    assert answer.json()["message"] == f"launch_parameters.{field}: {message}"


def test_what_a_host_has_is_taken(client: httpx.Client, small: ApiServer) -> None:
    launch = {"architecture": "x86_64", "resource_size_request": "CUSTOM_SIZE", "custom_cpu_cores": 4}
    assert client.post(DEVBOXES, json={"launch_parameters": launch}).status_code == 200
    assert client.post(DEVBOXES, json={"launch_parameters": {"resource_size_request": "XX_LARGE"}}).status_code == 200
