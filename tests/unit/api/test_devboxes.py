"""Devboxes over HTTP, with an agent that only pretends."""

import time
from typing import Any

import httpx
import pytest

from support.api_server import ApiServer

DEVBOXES = "/v1/devboxes"


def create(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{DEVBOXES}/create_and_await_running", json=body)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def test_a_devbox_from_its_creation_to_its_end(client: httpx.Client, policy_id: str) -> None:
    launch = {"network_policy_id": policy_id, "launch_commands": ["true"], "after_idle": None}
    first = client.post(DEVBOXES, json={"name": "d", "metadata": {"k": "v"}, "launch_parameters": launch}).json()
    assert first["status"] == "provisioning"
    path = f"{DEVBOXES}/{first['id']}"
    waited = client.post(f"{path}/wait_for_status", json={"statuses": ["running", "failure", "shutdown"]})
    view = waited.json()
    assert (waited.status_code, view["status"]) == (200, "running")
    assert (view["name"], view["metadata"], view["end_time_ms"]) == ("d", {"k": "v"}, None)
    assert view["launch_parameters"]["network_policy_id"] == policy_id
    assert view["launch_parameters"]["launch_commands"] == ["true"]
    assert (view["capabilities"], view["failure_reason"], view["shutdown_reason"]) == ([], None, None)
    assert [entry["status"] for entry in view["state_transitions"]] == ["provisioning", "running"]

    ended = client.post(f"{path}/shutdown", headers={"content-type": "application/json"}).json()
    assert (ended["status"], ended["shutdown_reason"]) == ("shutdown", "api_shutdown")
    assert ended["end_time_ms"] >= ended["create_time_ms"]
    again = client.post(f"{path}/shutdown", params={"force": "true"})
    assert (again.status_code, again.json()) == (200, ended)
    assert client.get(path).json() == ended


def test_no_body_at_all_makes_a_devbox(client: httpx.Client) -> None:
    view = client.post(DEVBOXES).json()
    assert view["launch_parameters"] == {"resource_size_request": "SMALL", "keep_alive_time_seconds": 3600}


def test_the_host_is_told_what_was_asked_for(client: httpx.Client, server: ApiServer) -> None:
    view = create(
        client,
        environment_variables={"A_1": "x=y\nz"},
        entrypoint="sleep 1",
        launch_parameters={
            "user_parameters": {"username": "root", "uid": 0},
            "resource_size_request": "CUSTOM_SIZE",
            "custom_cpu_cores": 1.5,
            "custom_gb_memory": 3,
            "lifecycle": {"after_idle": {"idle_time_seconds": 60, "on_idle": "shutdown"}},
        },
    )
    told = server.agent.devboxes[view["id"]]
    assert (told.environment, told.entrypoint, told.image) == ({"A_1": "x=y\nz"}, "sleep 1", "stock")
    assert (told.username, told.uid, told.cpu_cores, told.memory_mib) == ("root", 0, 1.5, 3072)
    assert view["launch_parameters"]["lifecycle"]["after_idle"]["on_idle"] == "shutdown"


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        (
            {"launch_parameters": {"network_policy_id": "npol_" + "a" * 21}},
            "launch_parameters.network_policy_id",
            "unknown_network_policy",
        ),
        (
            {"launch_parameters": {"network_policy_id": "x"}},
            "launch_parameters.network_policy_id",
            "unknown_network_policy",
        ),
        (
            {"launch_parameters": {"network_policy_id": ""}},
            "launch_parameters.network_policy_id",
            "unknown_network_policy",
        ),
        (
            {"launch_parameters": {"network_policy_id": "npol_default_deny_all"}},
            "launch_parameters.network_policy_id",
            "unknown_network_policy",
        ),
        ({"launch_parameters": {"network_policy_id": 1}}, "launch_parameters.network_policy_id", "wrong_type"),
        (
            {"launch_parameters": {"keep_alive_time_seconds": 0}},
            "launch_parameters.keep_alive_time_seconds",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"keep_alive_time_seconds": 172_801}},
            "launch_parameters.keep_alive_time_seconds",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"user_parameters": {"username": "a b", "uid": 1}}},
            "launch_parameters.user_parameters.username",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"user_parameters": {"username": "a", "uid": -1}}},
            "launch_parameters.user_parameters.uid",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"resource_size_request": "HUGE"}},
            "launch_parameters.resource_size_request",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"resource_size_request": "CUSTOM_SIZE", "custom_cpu_cores": 65}},
            "launch_parameters.custom_cpu_cores",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"resource_size_request": "CUSTOM_SIZE", "custom_gb_memory": 0}},
            "launch_parameters.custom_gb_memory",
            "invalid_value",
        ),
        ({"launch_parameters": {"launch_commands": ["x"] * 101}}, "launch_parameters.launch_commands", "invalid_value"),
        ({"environment_variables": {"1A": "x"}}, "environment_variables", "invalid_value"),
        ({"environment_variables": {"A": "x\u0000"}}, "environment_variables['A']", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata.a", "wrong_type"),
        (
            {"launch_parameters": {"custom_gb_memory": 4}},
            "launch_parameters.custom_gb_memory",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"resource_size_request": "CUSTOM_SIZE", "custom_disk_size": 0}},
            "launch_parameters.custom_disk_size",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"after_idle": {"idle_time_seconds": 0, "on_idle": "suspend"}}},
            "launch_parameters.after_idle.idle_time_seconds",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"after_idle": {"idle_time_seconds": 1, "on_idle": "explode"}}},
            "launch_parameters.after_idle.on_idle",
            "invalid_value",
        ),
        (
            {
                "launch_parameters": {
                    "after_idle": {"idle_time_seconds": 1, "on_idle": "suspend"},
                    "lifecycle": {"after_idle": {"idle_time_seconds": 2, "on_idle": "suspend"}},
                }
            },
            "launch_parameters.after_idle",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"lifecycle": {"lifecycle_hooks": {"suspend_deadline_ms": 60_001}}}},
            "launch_parameters.lifecycle.lifecycle_hooks.suspend_deadline_ms",
            "invalid_value",
        ),
        (
            {"launch_parameters": {"lifecycle": {"lifecycle_hooks": {"suspend_commands": ["a\u0000"]}}}},
            "launch_parameters.lifecycle.lifecycle_hooks.suspend_commands[0]",
            "invalid_value",
        ),
        ({"launch_parameters": {"available_ports": [0]}}, "launch_parameters.available_ports[0]", "invalid_value"),
        ({"launch_parameters": {"architecture": "riscv"}}, "launch_parameters.architecture", "invalid_value"),
        ({"launch_parameters": {"required_services": ["db"]}}, "launch_parameters.required_services", "not_served"),
        ({"blueprint_id": "bpt_x"}, "blueprint_id", "unknown_blueprint"),
        ({"blueprint_id": ""}, "blueprint_id", "unknown_blueprint"),
        ({"blueprint_name": "x"}, "blueprint_name", "unknown_blueprint"),
        ({"snapshot_id": "snp_x"}, "snapshot_id", "unknown_snapshot"),
        ({"snapshot_id": "snp_" + "a" * 21}, "snapshot_id", "unknown_snapshot"),
        ({"blueprint_id": "bpt_x", "snapshot_id": "snp_x"}, "snapshot_id", "invalid_value"),
        ({"blueprint_id": "bpt_x", "blueprint_name": "x"}, "blueprint_name", "invalid_value"),
        ({"gateways": {"A": {"gateway": "gwc_x", "secret": "s"}}}, "gateways", "not_served"),
        ({"mcp": {"A": {"mcp_config": "mcp_x", "secret": "s"}}}, "mcp", "not_served"),
        ({"secrets": {"A": "nobody"}}, "secrets.A", "unknown_secret"),
        ({"secrets": {"1A": "nobody"}}, "secrets", "invalid_value"),
        ({"secrets": {"A": "x"}, "environment_variables": {"A": "y"}}, "secrets.A", "invalid_value"),
        ({"tunnel": {}}, "tunnel", "tunnels_off"),
        ({"tunnel": {"auth_mode": "secret"}}, "tunnel.auth_mode", "invalid_value"),
        ({"mounts": [{}]}, "mounts[0]", "invalid_value"),
        ({"mounts": [{"type": "broker_mount", "axon_id": "x"}]}, "mounts[0]", "not_served"),
        ({"mounts": [{"type": "file_mount", "target": "", "content": ""}]}, "mounts[0].target", "invalid_value"),
        ({"mounts": [{"type": "file_mount", "target": "a/", "content": ""}]}, "mounts[0].target", "invalid_value"),
        ({"file_mounts": {"a": "\u0000"}}, "file_mounts['a'].content", "invalid_value"),
        (
            {"mounts": [{"type": "object_mount", "object_id": "obj_x", "object_path": "/a"}]},
            "mounts[0].object_id",
            "unknown_object",
        ),
        (
            {"mounts": [{"type": "code_mount", "repo_name": "../x", "repo_owner": "o"}]},
            "mounts[0].repo_name",
            "invalid_value",
        ),
        (
            {"code_mounts": [{"repo_name": "r", "repo_owner": "o", "git_ref": "--upload-pack=x"}]},
            "code_mounts[0].git_ref",
            "invalid_value",
        ),
        (
            {"code_mounts": [{"repo_name": "r", "repo_owner": "o", "token": "a b"}]},
            "code_mounts[0].token",
            "invalid_value",
        ),
        ({"file_mounts": {f"f{n}": "" for n in range(101)}}, "mounts", "invalid_value"),
    ],
)
def test_what_is_refused_leaves_no_trace(client: httpx.Client, body: dict[str, Any], field: str, code: str) -> None:
    for path in (DEVBOXES, f"{DEVBOXES}/create_and_await_running"):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["field"], answer.json()["code"]) == (400, field, code)
    assert client.get(DEVBOXES).json()["total_count"] == 0


def test_fields_may_be_null_or_empty(client: httpx.Client) -> None:
    empty: dict[str, Any] = {
        "blueprint_id": None,
        "mounts": [],
        "secrets": {},
        "gateways": {},
        "mcp": None,
        "tunnel": None,
    }
    view = client.post(DEVBOXES, json=empty).json()
    assert [view[name] for name in ("blueprint_id", "snapshot_id", "tunnel", "gateway_specs", "mcp_specs")] == [
        None
    ] * 5
    assert view["initiator_id"].startswith("key_")


def test_updates_of_name_and_metadata(client: httpx.Client) -> None:
    view = client.post(DEVBOXES, json={"name": "d", "metadata": {"k": "v"}}).json()
    path = f"{DEVBOXES}/{view['id']}"

    def change(body: dict[str, Any]) -> tuple[str | None, dict[str, str]]:
        changed = client.post(path, json=body).json()
        return changed["name"], changed["metadata"]

    assert change({}) == ("d", {"k": "v"})
    assert change({"name": None, "metadata": None}) == ("d", {"k": "v"})
    assert change({"name": "e"}) == ("e", {"k": "v"})
    assert change({"metadata": {"x": "y"}}) == ("e", {"x": "y"})
    assert change({"name": "", "metadata": {}}) == ("", {})
    assert client.post(path, json={"metadata": {"x": "y" * 5000}}).status_code == 400


def test_a_policy_in_use_cannot_be_deleted(client: httpx.Client, policy_id: str) -> None:
    boxes = [create(client, launch_parameters={"network_policy_id": policy_id})["id"] for _ in range(2)]
    answer = client.post(f"/v1/network-policies/{policy_id}/delete")
    assert (answer.status_code, answer.json()["code"]) == (400, "policy_in_use")
    assert answer.json()["message"] == (
        f"Policy {policy_id} is in use by 2 devboxes ({boxes[0]}, {boxes[1]}); shut them down first."
    )
    for box in boxes:
        client.post(f"{DEVBOXES}/{box}/shutdown")
    assert client.post(f"/v1/network-policies/{policy_id}/delete").status_code == 200


def test_an_update_is_in_force_on_the_host_before_it_is_answered(
    client: httpx.Client, server: ApiServer, policy_id: str
) -> None:
    create(client, launch_parameters={"network_policy_id": policy_id})
    for n in range(5):
        answer = client.post(f"/v1/network-policies/{policy_id}", json={"allowed_hostnames": [f"{n}.example"]})
        assert answer.headers["x-outgate-enforced"] == "1/1"
        assert server.agent.policies[policy_id].allowed_hostnames == (f"{n}.example",)


def test_a_wait_that_is_not_met_holds_for_its_whole_time(client: httpx.Client) -> None:
    view = create(client)
    started = time.monotonic()
    body = {"statuses": ["suspended"], "timeout_seconds": 0.7}
    answer = client.post(f"{DEVBOXES}/{view['id']}/wait_for_status", json=body)
    assert time.monotonic() - started >= 0.7
    assert answer.status_code == 408
    assert "x-should-retry" not in answer.headers
    assert answer.json()["message"] == f"Devbox {view['id']} is running after 0.7 s; waited for suspended."


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"statuses": []},
        {"statuses": ["dead"]},
        {"statuses": "running"},
        {"statuses": ["running"], "timeout_seconds": -1},
        {"statuses": ["running"], "timeout_seconds": "5"},
    ],
)
def test_waits_that_make_no_sense(client: httpx.Client, body: dict[str, Any]) -> None:
    view = client.post(DEVBOXES).json()
    assert client.post(f"{DEVBOXES}/{view['id']}/wait_for_status", json=body).status_code == 400


def test_keep_alive(client: httpx.Client) -> None:
    view = create(client)
    path = f"{DEVBOXES}/{view['id']}"
    kept = client.post(f"{path}/keep_alive", headers={"content-type": "application/json"})
    assert (kept.status_code, kept.json()) == (200, {})
    client.post(f"{path}/shutdown")
    late = client.post(f"{path}/keep_alive")
    assert (late.status_code, late.json()["code"], late.headers["x-should-retry"]) == (409, "devbox_ended", "false")


def test_a_short_keep_alive_ends_the_devbox(client: httpx.Client) -> None:
    view = create(client, launch_parameters={"keep_alive_time_seconds": 1})
    body = {"statuses": ["shutdown"], "timeout_seconds": 8}
    ended = client.post(f"{DEVBOXES}/{view['id']}/wait_for_status", json=body).json()
    assert ended["shutdown_reason"] == "keep_alive_timeout"


def test_another_accounts_devboxes_do_not_exist(client: httpx.Client, stranger: httpx.Client) -> None:
    path = f"{DEVBOXES}/{create(client)['id']}"
    execution = "exec_" + "a" * 21
    for answer in (
        stranger.get(path),
        stranger.post(path, json={"name": "x"}),
        stranger.post(f"{path}/shutdown"),
        stranger.post(f"{path}/keep_alive"),
        stranger.post(f"{path}/suspend"),
        stranger.post(f"{path}/resume"),
        stranger.get(f"{path}/usage"),
        stranger.post(f"{path}/wait_for_status", json={"statuses": ["running"]}),
        stranger.post(f"{path}/execute", json={"command": "true", "command_id": "1"}),
        stranger.post(f"{path}/execute_async", json={"command": "true"}),
        stranger.post(f"{path}/execute_sync", json={"command": "true"}),
        stranger.get(f"{path}/executions/{execution}"),
        stranger.post(f"{path}/executions/{execution}/kill"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "devbox_not_found")


def test_a_waiter_whose_client_left_is_freed(server: ApiServer, client: httpx.Client) -> None:
    view = create(client)
    with pytest.raises(httpx.ReadTimeout):
        client.post(f"{DEVBOXES}/{view['id']}/wait_for_status", json={"statuses": ["failure"]}, timeout=0.3)
    deadline = time.monotonic() + 30
    while any(topic.id == view["id"] for topic in list(server.services.wakeups._watches)):
        assert time.monotonic() < deadline, "the waiter is still there"
        time.sleep(0.05)
