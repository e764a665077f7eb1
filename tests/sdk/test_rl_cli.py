"""What rl-cli sends, as it sends it: HTTP/1.1 by an older JavaScript client (1.16), and the fields that it reads.

Bodies of calls without parameters are empty or ``{}``, always said to be JSON; forms and uploads come in chunks.
"""

import http.client
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest

from outgate.control.configuration import ApiSettings
from outgate.model.flow import HostContext
from outgate.model.names import DomainName
from support.api_server import ApiServer

SETTINGS: Final = ApiSettings(
    enforce_wait_s_max=1.0,
    ssh_host="ssh.runloop.test:22",
    context=HostContext(tunnel_domain=DomainName("tunnel.runloop.test")),
)
PAGE: Final = 10
"""rl-cli fetches lists in pages of ten, whatever limit it was given."""
BOUNDARY: Final = "form-data-boundary-k3xqz"


@dataclass(slots=True)
class Cli:
    """One run of the program: a kept-alive connection, and the headers of its client."""

    connection: http.client.HTTPConnection
    api_key: str
    empty: bytes

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> http.client.HTTPResponse:
        headers = {
            "Accept": accept,
            "Content-Type": content_type,
            "User-Agent": "Runloop/JS 1.16.0",
            "X-Stainless-Lang": "js",
            "X-Stainless-Package-Version": "1.16.0",
            "X-Stainless-OS": "Linux",
            "X-Stainless-Arch": "x64",
            "X-Stainless-Runtime": "node",
            "X-Stainless-Runtime-Version": "v22.11.0",
            "x-stainless-retry-count": "0",
            "Authorization": f"Bearer {self.api_key}",
            "Accept-Encoding": "gzip,deflate",
            "Connection": "keep-alive",
        }
        if method != "GET":
            headers["x-request-id"] = f"stainless-node-retry-{uuid.uuid4()}"
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        assert answer.version == 11
        return answer

    def get(self, path: str, **query: Any) -> Any:
        return read(self.send("GET", f"{path}?{urlencode(query)}" if query else path))

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        return read(self.send("POST", path, self.empty if body is None else json.dumps(body).encode()))

    def refused(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """The status and the message, which it prints."""
        answer = self.send(method, path, None if body is None else json.dumps(body).encode())
        assert answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(answer.read())["message"]

    def ids(self, path: str, key: str, limit: int, **query: Any) -> list[str]:
        """As its lists do: page after page until there are ``limit`` items, or no more."""
        found: list[str] = []
        while True:
            after = {"starting_after": found[-1]} if found else {}
            page = self.get(path, limit=min(PAGE, limit - len(found)), **after, **query)
            found += [one["id"] for one in page[key]]
            if not page["has_more"] or len(found) >= limit:
                return found

    def until(self, devbox_id: str, status: str) -> dict[str, Any]:
        """It polls the devbox, and gives up on a status that does not lead there."""
        deadline_s = time.monotonic() + 20
        while (view := self.get(f"/v1/devboxes/{devbox_id}"))["status"] != status:
            assert view["status"] not in ("failure", "shutdown")
            assert time.monotonic() < deadline_s, view
            time.sleep(0.02)
        return dict(view)

    def devbox(self, **given: Any) -> str:
        made = self.post("/v1/devboxes", {"name": f"devbox-{time.time_ns()}", **given})
        return str(self.until(made["id"], "running")["id"])


def read(answer: http.client.HTTPResponse) -> Any:
    text = answer.read()
    assert answer.status == 200, text
    return json.loads(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api"), SETTINGS) as running:
        yield running


@pytest.fixture(params=[b"", b"{}"], ids=["empty", "braces"])
def cli(server: ApiServer, api_key: str, request: pytest.FixtureRequest) -> Iterator[Cli]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    yield Cli(connection, api_key, request.param)
    connection.close()


POLICIES = "/v1/network-policies"


@pytest.mark.parametrize(
    ("flags", "label"),
    [
        ({"allow_all": True}, "Allow All"),
        ({}, "Deny All"),
        ({"allowed_hostnames": ["github.com", "*.npmjs.org"]}, "Custom (2)"),
        ({"allow_devbox_to_devbox": True, "allow_agent_gateway": True, "allow_mcp_gateway": True}, "Deny All"),
    ],
)
def test_network_policy_create_get_delete(cli: Cli, flags: dict[str, Any], label: str) -> None:
    made = cli.post(POLICIES, {"name": "p", "description": "d", **flags})
    shown = cli.get(f"{POLICIES}/{made['id']}")
    assert shown == made
    assert (shown["name"], shown["description"]) == ("p", "d")
    egress = shown["egress"]
    custom = f"Custom ({len(egress['allowed_hostnames'])})"
    assert label == ("Allow All" if egress["allow_all"] else custom if egress["allowed_hostnames"] else "Deny All")
    assert {name: egress[name] for name in flags} == flags
    assert 0 < shown["create_time_ms"] <= shown["update_time_ms"]
    # Its interactive form updates with all that it knows of.
    updated = cli.post(f"{POLICIES}/{made['id']}", {"name": "q", "description": "e", "allowed_hostnames": []})
    assert (updated["name"], updated["egress"]["allowed_hostnames"]) == ("q", [])
    assert cli.post(f"{POLICIES}/{made['id']}/delete")["id"] == made["id"]
    assert cli.refused("GET", f"{POLICIES}/{made['id']}") == (404, f"NetworkPolicy {made['id']} not found.")


def test_network_policy_list(cli: Cli) -> None:
    made = [cli.post(POLICIES, {"name": f"policy {number}"})["id"] for number in range(23)][::-1]
    assert cli.ids(POLICIES, "network_policies", 20) == made[:20]
    assert cli.ids(POLICIES, "network_policies", 1000) == made
    assert cli.ids(POLICIES, "network_policies", 20, name="policy 7") == [made[-8]]
    after = cli.get(POLICIES, limit=PAGE, starting_after=made[19])
    assert [one["id"] for one in after["network_policies"]] == made[20:]
    assert (after["has_more"], after["total_count"]) == (False, 23)


def test_refusals_are_printed_from_json(cli: Cli) -> None:
    assert cli.refused("POST", POLICIES, {"name": "p", "allowed_hostnames": ["*"]})[0] == 400
    assert cli.refused("POST", "/v1/devboxes/dbx_000000000000000000000/suspend")[0] == 404
    cli.api_key = "wrong"
    assert cli.refused("GET", POLICIES)[0] == 401


def test_devbox_create_with_all_its_flags(cli: Cli) -> None:
    policy_id = cli.post(POLICIES, {"name": "p"})["id"]
    cli.post("/v1/secrets", {"name": "TOKEN", "value": "v"})
    launch = {
        "resource_size_request": "SMALL",
        "architecture": "x86_64",
        "launch_commands": ["true"],
        "available_ports": [8080],
        "user_parameters": {"username": "dev", "uid": 1234},
        "after_idle": {"idle_time_seconds": 600, "on_idle": "suspend"},
        "network_policy_id": policy_id,
    }
    made = cli.post(
        "/v1/devboxes",
        {
            "name": "box",
            "entrypoint": "sleep 100",
            "environment_variables": {"A": "b=c"},
            "secrets": {"MY_TOKEN": "TOKEN"},
            "code_mounts": [{"repo_owner": "o", "repo_name": "r"}],
            "tunnel": {"auth_mode": "authenticated"},
            "launch_parameters": launch,
        },
    )
    shown = cli.until(made["id"], "running")
    assert {name: shown["launch_parameters"][name] for name in launch} == launch
    assert (shown["name"], shown["end_time_ms"], shown["capabilities"]) == ("box", None, [])
    assert (shown["tunnel"]["auth_mode"], bool(shown["tunnel"]["auth_token"])) == ("authenticated", True)
    assert cli.refused("POST", f"{POLICIES}/{policy_id}/delete")[0] == 400
    # What this server does not serve is said, not left out.
    assert "gateways" in cli.refused("POST", "/v1/devboxes", {"gateways": {"A": {"gateway": "g", "secret": "s"}}})[1]
    assert "mcp" in cli.refused("POST", "/v1/devboxes", {"mcp": {"A": {"mcp_config": "m", "secret": "s"}}})[1]


def test_devbox_list_suspend_resume_shutdown(cli: Cli) -> None:
    boxes = [cli.devbox() for _ in range(12)][::-1]
    assert cli.ids("/v1/devboxes", "devboxes", 100) == boxes
    path = f"/v1/devboxes/{boxes[0]}"
    cli.post(f"{path}/suspend")
    cli.until(boxes[0], "suspended")
    assert cli.ids("/v1/devboxes", "devboxes", 100, status="suspended") == boxes[:1]
    cli.post(f"{path}/resume")
    cli.until(boxes[0], "running")
    assert cli.post(f"{path}/shutdown")["status"] == "shutdown"
    assert cli.ids("/v1/devboxes", "devboxes", 100, status="running") == boxes[1:]


def test_devbox_exec(cli: Cli) -> None:
    box = cli.devbox()
    done = cli.post(f"/v1/devboxes/{box}/execute_sync", {"command": "echo out; echo err >&2; exit 3"})
    assert (done["stdout"], done["stderr"], done["exit_status"]) == ("out\n", "err\n", 3)


def test_devbox_exec_async_get_async_send_stdin_and_logs(cli: Cli) -> None:
    path = f"/v1/devboxes/{cli.devbox()}"
    begun = cli.post(f"{path}/execute_async", {"command": "cat", "attach_stdin": True})
    execution = f"{path}/executions/{begun['execution_id']}"
    assert (begun["status"], cli.get(execution)["status"]) == ("running", "running")
    assert cli.post(f"{execution}/send_std_in", {"text": "typed\n"})["success"] is True
    assert cli.post(f"{execution}/send_std_in", {"signal": "EOF"})["success"] is True
    deadline_s = time.monotonic() + 20
    while (view := cli.get(execution))["status"] != "completed":
        assert time.monotonic() < deadline_s, view
        time.sleep(0.02)
    assert (view["stdout"], view["exit_status"]) == ("typed\n", 0)
    both = cli.refused("POST", f"{execution}/send_std_in", {"text": "a", "signal": "EOF"})
    assert both[0] == 400

    endless = cli.post(f"{path}/execute_async", {"command": "sleep 60"})["execution_id"]
    assert cli.post(f"{path}/executions/{endless}/kill")["status"] == "completed"
    lines = cli.get(f"{path}/logs")["logs"]
    assert all(isinstance(line["timestamp_ms"], int) and line["level"] and line["source"] for line in lines)
    assert [line["cmd"] for line in lines if line.get("cmd")] == ["cat", "sleep 60"]
    assert "typed" in [line.get("message") for line in lines]


def test_devbox_read_write_upload_download(cli: Cli) -> None:
    path = f"/v1/devboxes/{cli.devbox()}"
    assert cli.post(f"{path}/write_file_contents", {"file_path": "a.txt", "contents": "grüße\n"})["exit_status"] == 0
    asked = json.dumps({"file_path": "a.txt"}).encode()
    text = cli.send("POST", f"{path}/read_file_contents", asked, accept="text/plain")
    assert (text.status, text.headers.get_content_type(), text.read().decode()) == (200, "text/plain", "grüße\n")

    data = bytes(range(256)) * 4000
    form = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="path"\r\n\r\nb.bin\r\n'.encode(),
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="local.bin"\r\n'.encode(),
        b"Content-Type: application/octet-stream\r\n\r\n",
        data,
        f"\r\n--{BOUNDARY}--\r\n\r\n".encode(),
    )
    form_type = f"multipart/form-data; boundary={BOUNDARY}"
    assert read(cli.send("POST", f"{path}/upload_file", form, content_type=form_type)) == {}
    down = cli.send("POST", f"{path}/download_file", b'{"path": "b.bin"}', accept="application/octet-stream")
    assert (down.status, down.read() == data) == (200, True)
    assert cli.refused("POST", f"{path}/read_file_contents", {"file_path": "absent"})[0] == 404


def test_devbox_ssh_pty_and_tunnel(cli: Cli) -> None:
    box = cli.devbox(launch_parameters={"user_parameters": {"username": "root", "uid": 0}})
    path = f"/v1/devboxes/{box}"
    # scp and rsync begin in the same way: who is the user, and a key.
    assert cli.get(path)["launch_parameters"]["user_parameters"]["username"] == "root"
    key = cli.post(f"{path}/create_ssh_key")
    assert (key["id"], key["ssh_user"], key["url"]) == (box, "root", "ssh.runloop.test:22")
    assert key["ssh_private_key"].startswith("-----BEGIN ")
    assert key["ssh_private_key"].endswith("-----\n"), "it is written to a file as it is"
    pty = cli.post(f"{path}/create_pty_tunnel")
    assert all(isinstance(pty[name], str) and pty[name] for name in ("tunnel_key", "auth_token"))
    tunnel = cli.post(f"{path}/enable_tunnel", {"auth_mode": "open"})
    assert cli.get(path)["tunnel"]["tunnel_key"] == tunnel["tunnel_key"]
    assert cli.post(f"{path}/remove_tunnel") == {}


def test_snapshots(cli: Cli) -> None:
    box = cli.devbox()
    path = "/v1/devboxes/disk_snapshots"
    made = [cli.post(f"/v1/devboxes/{box}/snapshot_disk", {"name": "s"})["id"] for _ in range(11)][::-1]
    unnamed = cli.post(f"/v1/devboxes/{box}/snapshot_disk", {})
    assert (unnamed["name"], unnamed["source_devbox_id"]) == (None, box)
    assert cli.ids(path, "snapshots", 1000, devbox_id=box) == [unnamed["id"], *made]
    state = cli.get(f"{path}/{made[0]}/status")
    assert (state["status"], state["snapshot"]["id"], state["snapshot"]["name"]) == ("complete", made[0], "s")
    assert cli.post(f"{path}/{made[0]}/delete") == {}
    assert cli.get(f"{path}/{made[0]}/status")["status"] == "deleted"
    heir = cli.devbox(snapshot_id=made[1])
    assert cli.get(f"/v1/devboxes/{heir}")["snapshot_id"] == made[1]


def test_blueprints(cli: Cli) -> None:
    body = {"name": "b", "dockerfile": "FROM ubuntu:22.04\n", "system_setup_commands": ["id"], "launch_parameters": {}}
    made = cli.post("/v1/blueprints", body)
    path = f"/v1/blueprints/{made['id']}"
    deadline_s = time.monotonic() + 20
    while (view := cli.get(path))["status"] != "build_complete":
        assert time.monotonic() < deadline_s, view
        time.sleep(0.02)
    assert (view["name"], view["state"], view["parameters"]["dockerfile"]) == ("b", "created", body["dockerfile"])
    assert cli.get(f"{path}/logs") == {"blueprint_id": made["id"], "logs": []}
    assert cli.ids("/v1/blueprints", "blueprints", 100, name="b") == [made["id"]]
    assert "RUN id" in cli.post("/v1/blueprints/preview", body)["dockerfile"]
    for given in ({"blueprint_id": made["id"]}, {"blueprint_name": "b"}):
        box = cli.devbox(**given)
        assert cli.get(f"/v1/devboxes/{box}")["blueprint_id"] == made["id"]
        cli.post(f"/v1/devboxes/{box}/shutdown")
    assert cli.post(f"{path}/delete") == {}


def test_objects(cli: Cli) -> None:
    made = cli.post("/v1/objects", {"name": "o", "content_type": "text"})
    place = urlsplit(made["upload_url"])
    # The bytes go and come by a plain fetch: no key, no type.
    plain = http.client.HTTPConnection(str(place.netloc), timeout=20)
    plain.request("PUT", f"{place.path}?{place.query}", b"content")
    answer = plain.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    path = f"/v1/objects/{made['id']}"
    assert cli.post(f"{path}/complete")["state"] == "READ_ONLY"
    shown = cli.get(path)
    assert (shown["name"], shown["content_type"], shown["size_bytes"]) == ("o", "text", 7)
    assert cli.ids("/v1/objects", "objects", 20, content_type="text") == [made["id"]]
    place = urlsplit(cli.get(f"{path}/download", duration_seconds=3600)["download_url"])
    plain.request("GET", f"{place.path}?{place.query}")
    assert plain.getresponse().read() == b"content"
    plain.close()
    assert cli.post(f"{path}/delete")["state"] == "DELETED"


def test_secrets(cli: Cli) -> None:
    made = cli.post("/v1/secrets", {"name": "TOKEN", "value": "one"})
    assert "value" not in made
    assert cli.get("/v1/secrets/TOKEN") == made
    assert cli.post("/v1/secrets/TOKEN", {"value": "two"})["update_time_ms"] >= made["create_time_ms"]
    listed = cli.get("/v1/secrets", limit=5000)
    assert ([one["name"] for one in listed["secrets"]], listed["has_more"]) == (["TOKEN"], False)
    assert cli.post("/v1/secrets/TOKEN/delete")["id"] == made["id"]
    assert cli.refused("GET", "/v1/secrets/TOKEN")[0] == 404


@pytest.mark.parametrize(
    ("path", "key", "body", "change"),
    [
        (
            "/v1/gateway-configs",
            "gateway_configs",
            {"endpoint": "https://api.example.com", "auth_mechanism": {"type": "header", "key": "x-api-key"}},
            {"auth_mechanism": {"type": "bearer"}},
        ),
        (
            "/v1/mcp-configs",
            "mcp_configs",
            {"endpoint": "https://mcp.example.com", "allowed_tools": ["*"]},
            {"allowed_tools": ["a.*", "b"]},
        ),
    ],
)
def test_configurations(cli: Cli, path: str, key: str, body: dict[str, Any], change: dict[str, Any]) -> None:
    made = cli.post(path, {"name": "c", "description": "d", **body})
    assert (made["name"], made["description"], made["endpoint"]) == ("c", "d", body["endpoint"])
    others = [cli.post(path, {"name": f"c{number}", **body})["id"] for number in range(11)][::-1]
    assert cli.ids(path, key, 100) == [*others, made["id"]]
    updated = cli.post(f"{path}/{made['id']}", change)
    assert cli.get(f"{path}/{made['id']}") == updated
    assert updated["auth_mechanism"]["type"] == "bearer"
    assert updated.get("allowed_tools") == change.get("allowed_tools")
    cli.post(f"{path}/{made['id']}/delete")
    assert cli.refused("GET", f"{path}/{made['id']}")[0] == 404
