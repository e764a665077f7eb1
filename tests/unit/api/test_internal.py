"""The hosts' interface: its own listener, its own tokens."""

import httpx
import msgspec
import pytest

from outgate.model.desired import DesiredState, HostReport
from support.api_server import HOST_TOKEN, ApiServer
from support.fake_commands import AGENT_URL


def internal(server: ApiServer, token: str | None = HOST_TOKEN) -> httpx.Client:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    return httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=10)


def test_the_desired_state_is_a_document_of_the_model(server: ApiServer, client: httpx.Client, policy_id: str) -> None:
    box = client.post("/v1/devboxes", json={"launch_parameters": {"network_policy_id": policy_id}}).json()
    with internal(server) as host:
        answer = host.get("/internal/v1/desired-state")
    state = msgspec.json.decode(answer.content, type=DesiredState)
    assert state.full
    assert box["id"] in {devbox.id for devbox in state.devboxes}
    assert policy_id in {policy.id for policy in state.policies}


@pytest.mark.parametrize("token", [None, "wrong", "ogk_x"])
def test_only_hosts_are_answered(server: ApiServer, client: httpx.Client, token: str | None) -> None:
    with internal(server, token) as stranger:
        assert stranger.get("/internal/v1/desired-state").status_code == 401
        assert stranger.post("/internal/v1/report", content=b"{}").status_code == 401
    with internal(server, client.headers["authorization"].removeprefix("Bearer ")) as account:
        assert account.get("/internal/v1/desired-state").status_code == 401


def test_a_host_token_is_no_api_key(server: ApiServer) -> None:
    headers = {"authorization": f"Bearer {HOST_TOKEN}"}
    assert httpx.get(f"{server.base_url}/v1/network-policies", headers=headers).status_code == 401


def test_public_routes_are_not_served_there(server: ApiServer) -> None:
    with internal(server) as host:
        for path in ("/v1/network-policies", "/healthz", "/openapi.json"):
            assert host.get(path).status_code == 404


@pytest.mark.parametrize("query", ["after=-1", "after=x", "wait_s=-1", "wait_s=nan", "wait_s=1000"])
def test_queries_that_make_no_sense(server: ApiServer, query: str) -> None:
    with internal(server) as host:
        assert host.get(f"/internal/v1/desired-state?{query}").status_code == 400


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"boot_id": "b", "url": "u", "enforced": "x"}'])
def test_reports_that_are_none(server: ApiServer, content: bytes) -> None:
    with internal(server) as host:
        answer = host.post("/internal/v1/report", content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")


def test_a_report_shows_in_the_health(server: ApiServer) -> None:
    report = HostReport("boot", AGENT_URL, 1, ready=False)
    with internal(server) as host:
        try:
            assert host.post("/internal/v1/report", content=msgspec.json.encode(report)).status_code == 200
            unready = httpx.get(f"{server.base_url}/readyz")
            assert unready.status_code == 503
            assert unready.json()["message"] == "No host enforces: the agent of host 'local' does not enforce yet"
            alive = httpx.get(f"{server.base_url}/healthz")
            assert (alive.status_code, alive.json()["status"]) == (200, "not_enforcing")
        finally:
            ready = msgspec.structs.replace(report, ready=True)
            host.post("/internal/v1/report", content=msgspec.json.encode(ready))
    well = httpx.get(f"{server.base_url}/readyz").json()
    assert (well["status"], well["message"], well["warnings"]) == ("enforcing", "", [])
    (host_view,) = well["hosts"]
    assert (host_view["name"], host_view["enforcing"]) == ("local", True)
    assert host_view["revision_enforced"] == 1
    assert host_view["revision_wanted"] >= 1
    assert 0 <= host_view["report_age_ms"] <= well["time_ms"]
