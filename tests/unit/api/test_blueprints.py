"""Blueprints over HTTP, with an agent that only pretends."""

import time
from typing import Any

import httpx
import msgspec
import pytest

from outgate.clock import wall_ms
from outgate.model.desired import (
    BUILD_COMPLETE,
    BuildLine,
    BuildLogPart,
    DesiredPhase,
    DevboxDocument,
    ObservedDevbox,
    ObservedPhase,
)
from support.api_server import HOST_TOKEN, ApiServer

BLUEPRINTS = "/v1/blueprints"
UNKNOWN = "bpt_" + "a" * 21
WAIT_S = 30.0


def create(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(BLUEPRINTS, json={"name": "b", **body})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def await_status(client: httpx.Client, blueprint_id: str, *statuses: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + WAIT_S
    while True:
        view: dict[str, Any] = client.get(f"{BLUEPRINTS}/{blueprint_id}").json()
        if view["status"] in statuses:
            return view
        assert time.monotonic() < deadline_s, view
        time.sleep(0.01)


@pytest.fixture
def silent(server: ApiServer) -> Any:
    """The host says nothing of builds by itself; call what this gives to have it say something."""

    def observe(devbox: DevboxDocument) -> ObservedDevbox | None:
        if devbox.phase is DesiredPhase.RUNNING:
            return None
        return ObservedDevbox(devbox.id, ObservedPhase.SHUTDOWN, wall_ms())

    server.agent.observe = observe
    yield
    server.agent.observe = None


def report(server: ApiServer, blueprint_id: str, phase: ObservedPhase, **how: Any) -> None:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    headers = {"authorization": f"Bearer {HOST_TOKEN}"}
    body = {
        "boot_id": "boot",
        "url": server.agent.url,
        "enforced": server.agent.states[-1].revision,
        "devboxes": [{"id": blueprint_id, "phase": phase.value, "time_ms": wall_ms(), **how}],
    }
    with httpx.Client(transport=transport, base_url="http://api", headers=headers) as host:
        assert host.post("/internal/v1/report", json=body).status_code == 200


def send_log(server: ApiServer, blueprint_id: str, part: BuildLogPart) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    with httpx.Client(
        transport=transport, base_url="http://api", headers={"authorization": f"Bearer {HOST_TOKEN}"}
    ) as host:
        return host.post(f"/internal/v1/builds/{blueprint_id}/log", content=msgspec.json.encode(part))


def test_a_blueprint_from_its_creation_to_its_end(client: httpx.Client, policy_id: str) -> None:
    body = {
        "system_setup_commands": ["true"],
        "launch_parameters": {"network_policy_id": policy_id, "launch_commands": ["id"]},
        "network_policy_id": policy_id,
        "metadata": {"k": "v"},
        "code_mounts": [{"repo_owner": "o", "repo_name": "r", "token": "hush"}],
        "file_mounts": {"/etc/x": "y"},
        "secrets": None,
    }
    first = create(client, **body)
    assert (first["status"], first["state"], first["metadata"]) == ("queued", "created", {"k": "v"})
    view = await_status(client, first["id"], "build_complete")
    assert view["build_finish_time_ms"] >= view["create_time_ms"]
    assert view["parameters"]["network_policy_id"] == policy_id
    assert view["parameters"]["launch_parameters"] == body["launch_parameters"]
    assert view["parameters"]["code_mounts"] == [{"repo_owner": "o", "repo_name": "r"}]
    assert (view["failure_reason"], view["is_public"], view["devbox_capabilities"]) == (None, False, [])
    assert [entry["id"] for entry in client.get(BLUEPRINTS).json()["blueprints"]] == [first["id"]]

    assert client.post(f"{BLUEPRINTS}/{first['id']}/delete", content=b"").json() == {}
    assert client.get(f"{BLUEPRINTS}/{first['id']}").json()["state"] == "deleted"
    assert client.get(BLUEPRINTS).json() == {"blueprints": [], "has_more": False, "total_count": 0}
    assert client.post(f"{BLUEPRINTS}/{first['id']}/delete").json() == {}


def test_the_host_is_told_what_to_build_and_then_nothing_more(
    client: httpx.Client, server: ApiServer, silent: None
) -> None:
    made = create(
        client,
        dockerfile="FROM scratch\n",
        build_args={"A": "1"},
        system_setup_commands=["one", "two"],
        launch_parameters={"resource_size_request": "MEDIUM", "user_parameters": {"username": "root", "uid": 0}},
        file_mounts={"f": "content"},
    )
    _await_told(server, made["id"])
    told = server.agent.devboxes[made["id"]]
    assert told.build is not None
    assert (told.build.dockerfile, told.build.build_args) == ("FROM scratch\n", {"A": "1"})
    assert (told.build.setup_commands, told.memory_mib, told.username) == (("one", "two"), 4096, "root")
    assert told.policy_id == "npol_default_allow_all"
    for phase, status in ((ObservedPhase.PROVISIONING, "provisioning"), (ObservedPhase.INITIALIZING, "building")):
        report(server, made["id"], phase)
        assert client.get(f"{BLUEPRINTS}/{made['id']}").json()["status"] == status
    report(server, made["id"], ObservedPhase.SHUTDOWN, shutdown_reason=BUILD_COMPLETE)
    assert client.get(f"{BLUEPRINTS}/{made['id']}").json()["status"] == "build_complete"
    # Whatever its host says later, what was built stays built.
    report(server, made["id"], ObservedPhase.FAILURE, detail="late")
    assert client.get(f"{BLUEPRINTS}/{made['id']}").json()["status"] == "build_complete"
    client.post(f"{BLUEPRINTS}/{made['id']}/delete").raise_for_status()
    _await_forgotten(server, made["id"])


@pytest.mark.parametrize(
    ("said", "reason"),
    [("out_of_memory", "out_of_memory"), ("out_of_disk", "out_of_disk"), ("execution_failed", "build_failed")],
)
def test_a_failed_build_says_why(client: httpx.Client, server: ApiServer, silent: None, said: str, reason: str) -> None:
    made = create(client)
    _await_told(server, made["id"])
    part = BuildLogPart(1, 0, (BuildLine(5, "a line"), BuildLine(6, "nul \0 here", "error")))
    assert send_log(server, made["id"], part).status_code == 200
    assert send_log(server, made["id"], part).status_code == 200
    logs = client.get(f"{BLUEPRINTS}/{made['id']}/logs").json()
    assert logs["blueprint_id"] == made["id"]
    assert logs["logs"][0] == {"level": "info", "message": "a line", "timestamp_ms": 5}
    assert len(logs["logs"]) == 2
    report(server, made["id"], ObservedPhase.FAILURE, failure_reason=said, detail="It went wrong.")
    view = client.get(f"{BLUEPRINTS}/{made['id']}").json()
    assert (view["status"], view["failure_reason"], view["failure_detail"]) == ("failed", reason, "It went wrong.")
    last = client.get(f"{BLUEPRINTS}/{made['id']}/logs").json()["logs"][-1]
    assert (last["level"], last["message"]) == ("error", "It went wrong.")
    report(server, made["id"], ObservedPhase.FAILURE)
    _await_forgotten(server, made["id"])


def test_deleting_a_running_build_cancels_it(client: httpx.Client, server: ApiServer, silent: None) -> None:
    made = create(client)
    _await_told(server, made["id"])
    client.post(f"{BLUEPRINTS}/{made['id']}/delete").raise_for_status()
    view = client.get(f"{BLUEPRINTS}/{made['id']}").json()
    assert (view["state"], view["status"]) == ("deleted", "failed")
    _await_forgotten(server, made["id"])
    assert any(
        devbox.id == made["id"] and devbox.phase is DesiredPhase.SHUTDOWN
        for state in server.agent.states
        for devbox in state.devboxes
    )


def test_devboxes_start_from_what_was_built_and_inherit(
    client: httpx.Client, server: ApiServer, policy_id: str
) -> None:
    other = client.post("/v1/network-policies", json={"name": "other"}).json()["id"]
    old = create(client, name="twice", launch_parameters={"network_policy_id": other})
    await_status(client, old["id"], "build_complete")
    new = create(client, name="twice", launch_parameters={"network_policy_id": policy_id, "launch_commands": ["id"]})
    await_status(client, new["id"], "build_complete")
    by_name = client.post("/v1/devboxes", json={"blueprint_name": "twice"}).json()
    assert by_name["launch_parameters"]["network_policy_id"] == policy_id
    assert by_name["launch_parameters"]["launch_commands"] == ["id"]
    assert by_name["blueprint_id"] == new["id"]
    own = {"blueprint_id": new["id"], "launch_parameters": {"network_policy_id": other}}
    overriding = client.post("/v1/devboxes", json=own).json()
    assert overriding["launch_parameters"]["network_policy_id"] == other
    assert overriding["launch_parameters"]["launch_commands"] == ["id"]
    _await_told(server, overriding["id"])
    assert server.agent.devboxes[overriding["id"]].image == new["id"]

    in_use = client.post(f"{BLUEPRINTS}/{new['id']}/delete")
    assert (in_use.status_code, in_use.json()["code"]) == (400, "blueprint_in_use")
    assert by_name["id"] in in_use.json()["message"]
    for view in (by_name, overriding):
        client.post(f"/v1/devboxes/{view['id']}/shutdown").raise_for_status()
    assert client.post(f"{BLUEPRINTS}/{new['id']}/delete").status_code == 200
    gone = client.post("/v1/devboxes", json={"blueprint_id": new["id"]})
    assert (gone.status_code, gone.json()["code"]) == (400, "unknown_blueprint")
    again = client.post("/v1/devboxes", json={"blueprint_name": "twice"}).json()
    assert again["blueprint_id"] == old["id"]


def test_a_policy_is_kept_while_a_build_or_a_blueprint_needs_it(
    client: httpx.Client, server: ApiServer, policy_id: str, silent: None
) -> None:
    building = create(client, network_policy_id=policy_id)
    _await_told(server, building["id"])
    refused = client.post(f"/v1/network-policies/{policy_id}/delete")
    assert (refused.status_code, refused.json()["code"]) == (400, "policy_in_use")
    assert building["id"] in refused.json()["message"]
    updated = client.post(f"/v1/network-policies/{policy_id}", json={"allowed_hostnames": ["x.example"]})
    assert updated.headers["x-outgate-enforced"] == "1/1"
    assert server.agent.policies[policy_id].allowed_hostnames == ("x.example",)
    report(server, building["id"], ObservedPhase.SHUTDOWN, shutdown_reason=BUILD_COMPLETE)
    handing_on = create(client, launch_parameters={"network_policy_id": policy_id})
    refused = client.post(f"/v1/network-policies/{policy_id}/delete")
    assert (refused.status_code, handing_on["id"] in refused.json()["message"]) == (400, True)
    client.post(f"{BLUEPRINTS}/{handing_on['id']}/delete").raise_for_status()
    assert client.post(f"/v1/network-policies/{policy_id}/delete").status_code == 200


def test_building_upon_another_blueprint(client: httpx.Client, server: ApiServer, silent: None) -> None:
    base = create(client, name="base", launch_parameters={"launch_commands": ["id"]})
    unbuilt = client.post(BLUEPRINTS, json={"name": "b", "base_blueprint_id": base["id"]})
    assert (unbuilt.status_code, unbuilt.json()["field"]) == (400, "base_blueprint_id")
    _await_told(server, base["id"])
    report(server, base["id"], ObservedPhase.SHUTDOWN, shutdown_reason=BUILD_COMPLETE)
    upon = create(client, base_blueprint_name="base")
    assert upon["base_blueprint_id"] == base["id"]
    _await_told(server, upon["id"])
    assert server.agent.devboxes[upon["id"]].image == base["id"]
    assert server.agent.devboxes[upon["id"]].launch_commands == ()
    in_use = client.post(f"{BLUEPRINTS}/{base['id']}/delete")
    assert (in_use.status_code, upon["id"] in in_use.json()["message"]) == (400, True)
    report(server, upon["id"], ObservedPhase.SHUTDOWN, shutdown_reason=BUILD_COMPLETE)
    assert client.post(f"{BLUEPRINTS}/{base['id']}/delete").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"dockerfile": " \n"}, "dockerfile"),
        ({"dockerfile": "FROM a\0b"}, "dockerfile"),
        ({"dockerfile": "FROM a", "base_blueprint_name": "b"}, "dockerfile"),
        ({"base_blueprint_id": UNKNOWN}, "base_blueprint_id"),
        ({"base_blueprint_id": UNKNOWN, "base_blueprint_name": "b"}, "base_blueprint_name"),
        ({"base_blueprint_name": "nobody's"}, "base_blueprint_name"),
        ({"base_blueprint_name": "nul\0"}, "base_blueprint_name"),
        ({"build_args": {"A": "b"}}, "build_args"),
        ({"dockerfile": "FROM a", "build_args": {"1A": "b"}}, "build_args"),
        ({"dockerfile": "FROM a", "build_args": {"A": "x" * 70_000}}, "build_args.A"),
        (
            {"dockerfile": "FROM a", "build_context": {"type": "object", "object_id": "obj_x"}},
            "build_context.object_id",
        ),
        ({"dockerfile": "FROM a", "build_context": {"type": "git", "object_id": "x"}}, "build_context.type"),
        ({"build_context": {"type": "object", "object_id": "obj_x"}}, "build_context"),
        ({"network_policy_id": "npol_" + "a" * 21}, "network_policy_id"),
        ({"launch_parameters": {"network_policy_id": "x"}}, "launch_parameters.network_policy_id"),
        ({"launch_parameters": {"keep_alive_time_seconds": 0}}, "launch_parameters.keep_alive_time_seconds"),
        ({"secrets": {"A": "nobody's"}}, "secrets.A"),
        ({"services": [{"name": "db", "image": "postgres"}]}, "services"),
        ({"system_setup_commands": ["a\0b"]}, "system_setup_commands[0]"),
        ({"system_setup_commands": ["true"] * 101}, "system_setup_commands"),
        ({"code_mounts": [{"repo_owner": "..", "repo_name": "r"}]}, "code_mounts[0].repo_owner"),
        ({"file_mounts": {"": "x"}}, None),
        ({"metadata": {"k": 1}}, "metadata.k"),
    ],
)
def test_what_cannot_be_built_is_refused_and_leaves_nothing(
    client: httpx.Client, body: dict[str, Any], field: str | None
) -> None:
    for path in (BLUEPRINTS, f"{BLUEPRINTS}/preview"):
        answer = client.post(path, json={"name": "b", **body})
        if path == BLUEPRINTS:
            assert answer.status_code == 400, answer.text
            assert field is None or answer.json()["field"] == field, answer.text
            assert answer.json()["message"]
        assert answer.status_code in (200, 400)
    assert client.get(BLUEPRINTS).json()["total_count"] == 0


@pytest.mark.parametrize("blueprint_id", [UNKNOWN, "x", "dbx_" + "a" * 21, "bpt_%00"])
def test_unknown_ids_are_not_found(client: httpx.Client, blueprint_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/delete")):
        answer = client.request(method, f"{BLUEPRINTS}/{blueprint_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "blueprint_not_found")


def test_another_account_sees_nothing(client: httpx.Client, stranger: httpx.Client) -> None:
    made = create(client, name="mine")
    await_status(client, made["id"], "build_complete")
    for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/delete")):
        assert stranger.request(method, f"{BLUEPRINTS}/{made['id']}{path}").status_code == 404
    assert stranger.get(BLUEPRINTS).json()["blueprints"] == []
    for start in ({"blueprint_id": made["id"]}, {"blueprint_name": "mine"}):
        assert stranger.post("/v1/devboxes", json=start).status_code == 400
    for base in ({"base_blueprint_id": made["id"]}, {"base_blueprint_name": "mine"}):
        assert stranger.post(BLUEPRINTS, json={"name": "b", **base}).status_code == 400


def test_a_repeated_request_builds_once(client: httpx.Client) -> None:
    headers = {"x-request-id": "one"}
    first = client.post(BLUEPRINTS, json={"name": "b"}, headers=headers).json()["id"]
    assert client.post(BLUEPRINTS, json={"name": "b"}, headers=headers).json()["id"] == first
    other = client.post(BLUEPRINTS, json={"name": "c"}, headers=headers)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")
    await_status(client, first, "build_complete")
    client.post(f"{BLUEPRINTS}/{first}/delete").raise_for_status()
    assert client.post(BLUEPRINTS, json={"name": "b"}, headers=headers).json()["id"] != first


def test_lists_are_filtered_and_paged(client: httpx.Client) -> None:
    ids = [create(client, name=name)["id"] for name in ("a", "b", "a")]
    for blueprint_id in ids:
        await_status(client, blueprint_id, "build_complete")
    page = client.get(BLUEPRINTS, params={"limit": 2}).json()
    assert ([b["id"] for b in page["blueprints"]], page["has_more"], page["total_count"]) == (ids[:0:-1], True, 3)
    rest = client.get(BLUEPRINTS, params={"limit": 2, "starting_after": ids[1]}).json()
    assert ([b["id"] for b in rest["blueprints"]], rest["has_more"]) == (ids[:1], False)
    assert [b["id"] for b in client.get(BLUEPRINTS, params={"name": "a"}).json()["blueprints"]] == [ids[2], ids[0]]
    assert client.get(BLUEPRINTS, params={"status": "failed"}).json()["blueprints"] == []
    public = client.get(f"{BLUEPRINTS}/list_public").json()
    assert public == {"blueprints": [], "has_more": False, "total_count": 0}
    for params in ({"limit": 0}, {"starting_after": "x"}, {"status": "done"}):
        for path in (BLUEPRINTS, f"{BLUEPRINTS}/list_public"):
            assert client.get(path, params=params).status_code == 400


def test_the_preview_is_a_dockerfile_without_anybodys_secrets(client: httpx.Client) -> None:
    body = {
        "name": "b",
        "dockerfile": "FROM ubuntu:22.04\nRUN true\n",
        "file_mounts": {"/etc/x": "content"},
        "code_mounts": [{"repo_owner": "o", "repo_name": "r", "token": "hush", "install_command": "make"}],
        "system_setup_commands": ["apt-get update"],
    }
    answer = client.post(f"{BLUEPRINTS}/preview", json=body)
    text = answer.json()["dockerfile"]
    assert text.startswith("FROM ubuntu:22.04\nRUN true\n")
    assert text.endswith("RUN apt-get update\n")
    assert "o/r" in text
    assert "hush" not in text
    assert "content" not in text
    assert client.post(f"{BLUEPRINTS}/preview", json={"name": "b"}).json()["dockerfile"] == "FROM stock\n"
    assert client.get(BLUEPRINTS).json()["total_count"] == 0


def test_only_its_own_host_writes_a_builds_log(client: httpx.Client, server: ApiServer, silent: None) -> None:
    made = create(client)
    part = BuildLogPart(1, 0, (BuildLine(5, "a line"),))
    assert send_log(server, UNKNOWN, part).status_code == 200
    assert send_log(server, "x", part).status_code == 404
    client.post(f"{BLUEPRINTS}/{made['id']}/delete").raise_for_status()
    assert send_log(server, made["id"], part).status_code == 200
    messages = [line["message"] for line in client.get(f"{BLUEPRINTS}/{made['id']}/logs").json()["logs"]]
    assert messages == ["The blueprint was deleted while it was built."]


def _await_told(server: ApiServer, blueprint_id: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while blueprint_id not in server.agent.devboxes:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def _await_forgotten(server: ApiServer, blueprint_id: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not any(blueprint_id in state.forgotten for state in server.agent.states):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
