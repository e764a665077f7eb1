"""Gateway and MCP configurations over the wire: the same five operations for both kinds."""

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from outgate.control.configs import note_config_use
from support.api_server import ApiServer


@dataclass(frozen=True)
class Kind:
    path: str
    listed: str
    prefix: str
    body: dict[str, Any] = field(default_factory=dict)

    def create(self, client: httpx.Client, **fields: Any) -> dict[str, Any]:
        answer = client.post(self.path, json={**self.body, **fields})
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        return view


COMMON = {"name": "github", "endpoint": "https://api.example.com/v1", "auth_mechanism": {"type": "bearer"}}
GATEWAY = Kind("/v1/gateway-configs", "gateway_configs", "gwc_", COMMON)
MCP = Kind("/v1/mcp-configs", "mcp_configs", "mcp_", {**COMMON, "allowed_tools": ["github.*", "*"]})

pytestmark = pytest.mark.parametrize("kind", [GATEWAY, MCP], ids=["gateway", "mcp"])


def test_the_five_operations(client: httpx.Client, kind: Kind) -> None:
    secret = client.post("/v1/secrets", json={"name": "KEY", "value": "x"}).json()
    headers = [{"name": "X-Api-Key", "secret": "KEY"}, {"name": "X-Team", "value": "a b"}]
    view = kind.create(client, description="d", custom_headers=headers)
    assert view["id"].startswith(kind.prefix)
    assert view["custom_headers"] == [
        {"name": "X-Api-Key", "secret": secret["id"], "value": None},
        {"name": "X-Team", "secret": None, "value": "a b"},
    ]
    assert view["auth_mechanism"] == {"type": "bearer", "key": None}
    assert {key: view[key] for key in kind.body if key != "auth_mechanism"} == {
        key: value for key, value in kind.body.items() if key != "auth_mechanism"
    }
    place = f"{kind.path}/{view['id']}"
    assert client.get(place).json() == view

    for unchanged in ({}, {"description": None, "custom_headers": None, "name": None, "endpoint": None}):
        assert client.post(place, json=unchanged).json() == view
    mechanism = {"type": "header", "key": "x-api-key"}
    for change in ({"name": "n"}, {"endpoint": "http://h:8080"}, {"auth_mechanism": mechanism}, {"description": ""}):
        view = {**view, **change}
        assert client.post(place, json=change).json() == view
    view = {**view, "custom_headers": []}
    assert client.post(place, json={"custom_headers": []}).json() == view

    listed = client.get(kind.path).json()
    assert listed == {kind.listed: [view], "has_more": False, "total_count": 1}
    assert client.post(f"{place}/delete").json() == view
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/delete")):
        assert client.request(method, place + path).status_code == 404
    assert client.get(kind.path).json()["total_count"] == 0


def test_names_are_unique_among_those_of_a_kind(client: httpx.Client, kind: Kind) -> None:
    first = kind.create(client)
    taken = client.post(kind.path, json=kind.body)
    assert (taken.status_code, taken.json()["code"], taken.headers["x-should-retry"]) == (409, "name_taken", "false")
    assert first["id"] in taken.json()["message"]
    other = kind.create(client, name="other")
    assert client.post(f"{kind.path}/{other['id']}", json={"name": "github"}).status_code == 409
    assert client.post(f"{kind.path}/{first['id']}", json={"name": "github"}).status_code == 200
    (MCP if kind is GATEWAY else GATEWAY).create(client)
    client.post(f"{kind.path}/{first['id']}/delete")
    assert client.post(f"{kind.path}/{other['id']}", json={"name": "github"}).status_code == 200


def test_lists(client: httpx.Client, kind: Kind) -> None:
    ids = [kind.create(client, name=f"Config {n}")["id"] for n in range(3)]

    def listed(query: str) -> list[str]:
        return [view["id"] for view in client.get(f"{kind.path}?{query}").json()[kind.listed]]

    assert listed("") == ids[::-1]
    assert listed(f"id={ids[1]}") == [ids[1]]
    assert listed("name=config 2") == [ids[2]]
    assert listed(f"search={ids[0]}") == [ids[0]]
    assert listed(f"limit=1&starting_after={ids[2]}") == [ids[1]]
    assert client.get(f"{kind.path}?include_total_count=false").json()["total_count"] is None
    for query in ("limit=0", "starting_after=x", "starting_after=npol_000000000000000000000"):
        assert client.get(f"{kind.path}?{query}").status_code == 400


@pytest.mark.parametrize(
    ("change", "blamed"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"endpoint": None}, "endpoint"),
        ({"endpoint": "api.example.com"}, "endpoint"),
        ({"endpoint": "ftp://api.example.com"}, "endpoint"),
        ({"endpoint": "https://"}, "endpoint"),
        ({"endpoint": "https://user:pass@api.example.com"}, "endpoint"),
        ({"endpoint": "https://api.example.com:99999"}, "endpoint"),
        ({"endpoint": "https://api.example.com/?key=1"}, "endpoint"),
        ({"endpoint": "https://api.example.com/\r\nx"}, "endpoint"),
        ({"endpoint": "https://[::1"}, "endpoint"),
        ({"endpoint": "https://a.example/" + "x" * 2048}, "endpoint"),
        ({"auth_mechanism": {"type": "digest"}}, "auth_mechanism.type"),
        ({"auth_mechanism": {"type": "header"}}, "auth_mechanism.key"),
        ({"auth_mechanism": {"type": "bearer", "key": "x"}}, "auth_mechanism.key"),
        ({"auth_mechanism": {"type": "header", "key": "a b"}}, "auth_mechanism.key"),
        ({"auth_mechanism": {"type": "header", "key": "Host"}}, "auth_mechanism.key"),
        ({"auth_mechanism": {"type": "bearer", "scheme": "x"}}, "auth_mechanism.scheme"),
        ({"custom_headers": [{"name": "a", "value": "b"}] * 9}, "custom_headers"),
        ({"custom_headers": [{"name": "A", "value": "b"}, {"name": "a", "value": "b"}]}, "custom_headers[1].name"),
        ({"custom_headers": [{"name": "a"}]}, "custom_headers[0]"),
        ({"custom_headers": [{"name": "a", "value": "b", "secret": "KEY"}]}, "custom_headers[0].secret"),
        ({"custom_headers": [{"name": "a", "secret": "NONE"}]}, "custom_headers[0].secret"),
        ({"custom_headers": [{"name": "a", "secret": "\x00"}]}, "custom_headers[0].secret"),
        ({"custom_headers": [{"name": "a", "value": "x\r\nb: c"}]}, "custom_headers[0].value"),
        ({"custom_headers": [{"name": "content-length", "value": "1"}]}, "custom_headers[0].name"),
        ({"custom_headers": "x"}, "custom_headers"),
        ({"description": "\x00"}, "description"),
    ],
)
def test_bad_bodies(client: httpx.Client, kind: Kind, change: dict[str, object], blamed: str) -> None:
    answer = client.post(kind.path, json={**kind.body, **change})
    assert (answer.status_code, answer.json()["field"]) == (400, blamed), answer.text
    assert client.get(kind.path).json()["total_count"] == 0
    made = kind.create(client)
    if None not in change.values():
        answer = client.post(f"{kind.path}/{made['id']}", json=change)
        assert (answer.status_code, answer.json()["field"]) == (400, blamed), answer.text
        assert client.get(f"{kind.path}/{made['id']}").json() == made


def test_tools_belong_to_mcp_configs(client: httpx.Client, kind: Kind) -> None:
    if kind is GATEWAY:
        assert "allowed_tools" not in kind.create(client, allowed_tools=["x"])
        return
    assert client.post(kind.path, json=COMMON).json()["field"] == "allowed_tools"
    for tools, blamed in (
        (["a b"], "allowed_tools[0]"),
        (["*", ""], "allowed_tools[1]"),
        (["x"] * 1001, "allowed_tools"),
    ):
        refused = client.post(kind.path, json={**kind.body, "allowed_tools": tools})
        assert (refused.status_code, refused.json()["field"]) == (400, blamed)
    made = kind.create(client)
    assert client.post(f"{kind.path}/{made['id']}", json={"allowed_tools": []}).json()["allowed_tools"] == []
    without = {key: value for key, value in kind.body.items() if key != "auth_mechanism"}
    unsaid = client.post(kind.path, json={**without, "name": "unsaid"}).json()
    assert unsaid["auth_mechanism"] == {"type": "bearer", "key": None}


def test_nothing_of_it_is_anothers(client: httpx.Client, stranger: httpx.Client, kind: Kind) -> None:
    secret = client.post("/v1/secrets", json={"name": "KEY", "value": "x"}).json()
    made = kind.create(client)
    other = (MCP if kind is GATEWAY else GATEWAY).create(client)
    for config_id in (made["id"], kind.prefix + "0" * 21, "x"):
        for method, path in (("GET", ""), ("POST", ""), ("POST", "/delete")):
            assert stranger.request(method, f"{kind.path}/{config_id}{path}").status_code == 404
    assert client.get(f"{kind.path}/{other['id']}").status_code == 404
    for reference in ("KEY", secret["id"]):
        header = {"name": "a", "secret": reference}
        assert stranger.post(kind.path, json={**kind.body, "custom_headers": [header]}).status_code == 400
    assert client.get(f"{kind.path}/{made['id']}").json() == made


def test_repeated_requests(client: httpx.Client, kind: Kind) -> None:
    headers = {"x-request-id": "again"}
    first, second = (client.post(kind.path, json=kind.body, headers=headers).json() for _ in range(2))
    assert first == second
    place = f"{kind.path}/{first['id']}"
    deleted = [client.post(f"{place}/delete", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in deleted] == [200, 200]
    assert client.post(kind.path, json=kind.body, headers=headers).json()["id"] != first["id"]


def test_one_that_a_live_devbox_uses_is_not_deleted(server: ApiServer, client: httpx.Client, kind: Kind) -> None:
    made = kind.create(client)
    devbox = client.post("/v1/devboxes", json={}).json()
    server.database.write_now(lambda tx: note_config_use(tx, made["id"], devbox["id"]))
    refused = client.post(f"{kind.path}/{made['id']}/delete")
    assert (refused.status_code, refused.json()["code"]) == (400, "config_in_use")
    assert devbox["id"] in refused.json()["message"]
    client.post(f"/v1/devboxes/{devbox['id']}/shutdown")
    assert client.post(f"{kind.path}/{made['id']}/delete").status_code == 200


def test_a_token_is_refused_with_the_reason(client: httpx.Client, stranger: httpx.Client, kind: Kind) -> None:
    made = kind.create(client)
    client.post("/v1/secrets", json={"name": "KEY", "value": "x"})
    devbox = client.post("/v1/devboxes", json={}).json()["id"]
    route, reference = ("gateway", "gateway") if kind is GATEWAY else ("mcp", "mcp_config")
    path = f"/v1/devboxes/{devbox}/create_{route}_token"
    body = {reference: "github", "secret": "KEY"}
    for given in (body, {**body, reference: made["id"]}):
        refused = client.post(path, json=given)
        assert (refused.status_code, refused.json()["code"]) == (400, "not_served")
        assert f"OUTGATE_{route.upper() if kind is MCP else 'AGENT'}_GATEWAY_HOSTS" in refused.json()["message"]
    for change, blamed in (({reference: "none"}, reference), ({"secret": "NONE"}, "secret")):
        refused = client.post(path, json={**body, **change})
        assert (refused.status_code, refused.json()["field"]) == (400, blamed)
    assert client.post(path, json={}).status_code == 400
    assert stranger.post(path, json=body).status_code == 404
    client.post(f"/v1/devboxes/{devbox}/shutdown")
