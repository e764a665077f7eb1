"""Simulated updates and explanations with their checks."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from outgate.clock import wall_ms
from outgate.model.desired import FlowBatch, FlowRecord
from support.api_server import HOST_TOKEN, ApiServer

POLICIES = "/v1/network-policies"


@pytest.fixture
def host(server: ApiServer) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    headers = {"authorization": f"Bearer {HOST_TOKEN}"}
    with httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
def policy_id(client: httpx.Client) -> str:
    body = {
        "name": f"simulated-{wall_ms()}",
        "allowed_hostnames": ["kept.example", "lost.example"],
        "allowed_cidrs": [{"cidr": "8.8.8.0/24"}],
    }
    made: str = client.post(POLICIES, json=body).json()["id"]
    return made


def tell(client: httpx.Client, host: httpx.Client, policy_id: str, number: int, *kinds: dict[str, Any]) -> None:
    devbox = client.post("/v1/devboxes", json={"launch_parameters": {"network_policy_id": policy_id}}).json()["id"]
    records = tuple(
        msgspec.structs.replace(FlowRecord(wall_ms(), devbox, policy_id, 1, "allow", "hostname", "relay"), **kind)
        for kind in kinds
    )
    batch = msgspec.json.encode(FlowBatch(f"sim-{policy_id}", number, records))
    assert host.post("/internal/v1/flows", content=batch).status_code == 200


def simulate(client: httpx.Client, policy_id: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{POLICIES}/{policy_id}/simulate", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def web(name: str, **other: Any) -> dict[str, Any]:
    return {"name": name, "address": "1.2.3.4", "port": 443, "protocol": "tls"} | other


def test_what_an_update_would_open_and_close_by_what_was_tried(
    client: httpx.Client, host: httpx.Client, policy_id: str
) -> None:
    denied = {"verdict": "deny", "reason": "no_rule"}
    tell(
        client,
        host,
        policy_id,
        1,
        web("kept.example", count=7),
        web("lost.example", count=3),
        web("lost.example", bytes_out=9, bytes_in=9, duration_ms=9),
        {"name": "wanted.example", "point": "dns", "count": 2} | denied,
        {"name": "never.example", "point": "dns"} | denied,
        {"address": "8.8.8.8", "port": 53, "protocol": "udp", "point": "kernel", "reason": "cidr"},
        {"address": "9.9.9.9", "port": 53, "protocol": "udp", "point": "kernel"} | denied,
        {"address": "1.2.3.4", "port": 22, "protocol": "tcp", "reason": "address_bound"},
        {"name": "no host name!", "point": "dns"} | denied,
    )
    change = {"allowed_hostnames": ["kept.example", "wanted.example"], "allowed_cidrs": [{"cidr": "9.9.9.0/24"}]}
    said = simulate(client, policy_id, **change)
    assert {(one["hostname"], one["address"], one["port"], one["count"]) for one in said["opened"]} == {
        ("wanted.example", None, None, 2),
        (None, "9.9.9.9", 53, 1),
    }
    assert {(one["hostname"], one["address"], one["count"]) for one in said["closed"]} == {
        ("lost.example", "1.2.3.4", 3),
        (None, "8.8.8.8", 1),
    }
    (lost,) = [one for one in said["closed"] if one["hostname"]]
    assert (lost["was"]["verdict"], lost["was"]["rule"]) == ("allow", "allowed_hostnames[1] lost.example")
    assert (lost["becomes"]["verdict"], lost["becomes"]["reason"]) == ("deny", "name_not_allowed")
    assert (said["judged_count"], said["undecided_count"], said["partial"]) == (17, 1, False)
    view = client.get(f"{POLICIES}/{policy_id}").json()
    assert view["egress"]["allowed_hostnames"] == ["kept.example", "lost.example"], "nothing is changed"


def test_only_the_time_that_is_asked_for_and_the_own_policy(
    server: ApiServer, client: httpx.Client, host: httpx.Client, policy_id: str
) -> None:
    old_ms = wall_ms() - 3 * 3_600_000
    tell(client, host, policy_id, 1, web("lost.example", time_ms=old_ms))
    assert len(simulate(client, policy_id, allowed_hostnames=[])["closed"]) == 1
    assert simulate(client, policy_id, allowed_hostnames=[], hours=2)["closed"] == []
    with server.client(server.new_account(f"stranger-{policy_id}").api_key) as stranger:
        assert stranger.post(f"{POLICIES}/{policy_id}/simulate", json={}).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"hours": 0}, "hours"),
        ({"hours": "many"}, "hours"),
        ({"allowed_hostnames": ["*"]}, "allowed_hostnames[0]"),
        ({"allowed_host": ["x.org"]}, "allowed_host"),
    ],
)
def test_updates_that_would_be_refused(client: httpx.Client, policy_id: str, body: dict[str, Any], field: str) -> None:
    answer = client.post(f"{POLICIES}/{policy_id}/simulate", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_an_explanation_lists_its_checks_in_order(client: httpx.Client, policy_id: str) -> None:
    question = {"hostname": "kept.example", "address": "127.0.0.1", "port": 443}
    said = client.post(f"{POLICIES}/{policy_id}/explain", json=question).json()
    first, *_, last = said["checks"]
    assert (first["enforcement_point"], first["verdict"], first["reason"]) == ("dns", "allow", "hostname")
    assert last["reason"] == said["reason"] == "floor_loopback"


def test_a_devbox_is_explained_by_its_policy(server: ApiServer, client: httpx.Client, policy_id: str) -> None:
    launch = {"launch_parameters": {"network_policy_id": policy_id}}
    own = client.post("/v1/devboxes", json=launch).json()["id"]
    without = client.post("/v1/devboxes", json={}).json()["id"]
    question = {"hostname": "elsewhere.example"}
    assert client.post(f"/v1/devboxes/{own}/explain", json=question).json()["policy_id"] == policy_id
    default = client.post(f"/v1/devboxes/{without}/explain", json=question).json()
    assert (default["policy_id"], default["verdict"]) == ("npol_default_allow_all", "allow")
    with server.client(server.new_account(f"other-{policy_id}").api_key) as stranger:
        assert stranger.post(f"/v1/devboxes/{own}/explain", json=question).status_code == 404
