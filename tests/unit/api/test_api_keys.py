"""API keys made over the API, and what a restricted one may do."""

from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from outgate.api import app
from outgate.api.scopes import find_requirements
from outgate.clock import wall_ms
from outgate.control.accounts import revoke_key
from outgate.store.tables import api_keys
from support.api_server import ApiServer

DEVBOXES, BLUEPRINTS, SNAPSHOTS, OBJECTS, ACCOUNT = (
    f"RESOURCE_TYPE_{name}" for name in ("DEVBOXES", "BLUEPRINTS", "SNAPSHOTS", "OBJECTS", "ACCOUNT")
)


def restrict(client: httpx.Client, **levels: str) -> str:
    scopes = [
        {"resource_type": f"RESOURCE_TYPE_{name.upper()}", "access_level": f"ACCESS_LEVEL_{level.upper()}"}
        for name, level in levels.items()
    ]
    answer = client.post("/v1/restricted_keys", json={"name": "k", "scopes": scopes})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    assert view["scopes"] == scopes
    return str(view["key_secret"])


def test_a_key_that_is_made_over_the_api_is_one(server: ApiServer, client: httpx.Client) -> None:
    made = client.post("/v1/apikeys", json={"name": "ci"}).json()
    assert (made["name"], made["expires_at_ms"]) == ("ci", None)
    with server.client(made["key_secret"]) as other:
        assert other.get("/v1/accounts/me").json() == client.get("/v1/accounts/me").json()
        policy = other.post("/v1/network-policies", json={"name": "by the new key"}).json()
        revoke_key(server.database, made["id"], wall_ms())
        assert other.get("/v1/accounts/me").status_code == 401
    assert client.get(f"/v1/network-policies/{policy['id']}").status_code == 200
    assert client.post("/v1/apikeys").json()["name"] == ""


def test_a_key_expires(server: ApiServer, client: httpx.Client) -> None:
    made = client.post("/v1/apikeys", json={"expires_at_ms": wall_ms() + 600_000}).json()
    past = api_keys.update().where(api_keys.c.id == made["id"]).values(expire_time_ms=wall_ms() - 1)
    with server.client(made["key_secret"]) as other:
        assert other.get("/v1/accounts/me").status_code == 200
        server.database.write_now(lambda tx: tx.execute(past))
        for route in ("/v1/accounts/me", "/v1/objects/list_public", "/v1/secrets"):
            assert other.get(route).status_code == 401


def test_a_repeated_call_shows_the_same_key(server: ApiServer, client: httpx.Client) -> None:
    headers = {"x-request-id": "a key"}
    first, second = (client.post("/v1/apikeys", json={"name": "k"}, headers=headers).json() for _ in range(2))
    assert first == second
    with server.client(first["key_secret"]) as other:
        assert other.get("/v1/accounts/me").status_code == 200
    assert client.post("/v1/apikeys", json={"name": "l"}, headers=headers).status_code == 409
    revoke_key(server.database, first["id"], wall_ms())
    anew = client.post("/v1/apikeys", json={"name": "k"}, headers=headers).json()
    assert anew["id"] != first["id"]
    assert anew["key_secret"] != first["key_secret"]


@pytest.mark.parametrize(
    ("path", "body", "blamed"),
    [
        ("apikeys", {"name": 7}, "name"),
        ("apikeys", {"name": "x" * 257}, "name"),
        ("apikeys", {"expires_at_ms": 1}, "expires_at_ms"),
        ("apikeys", {"expires_at_ms": "soon"}, "expires_at_ms"),
        ("apikeys", {"expires_at_ms": 2**60}, "expires_at_ms"),
        ("restricted_keys", {}, "scopes"),
        ("restricted_keys", {"scopes": []}, "scopes"),
        ("restricted_keys", {"scopes": [{}]}, "scopes[0].resource_type"),
        ("restricted_keys", {"scopes": [{"resource_type": DEVBOXES}]}, "scopes[0].access_level"),
        ("restricted_keys", {"scopes": [{"resource_type": "X"}]}, "scopes[0].resource_type"),
        (
            "restricted_keys",
            {"scopes": [{"resource_type": DEVBOXES, "access_level": "ALL"}]},
            "scopes[0].access_level",
        ),
        (
            "restricted_keys",
            {"scopes": [{"resource_type": DEVBOXES, "access_level": "ACCESS_LEVEL_READ"}] * 2},
            "scopes[1].resource_type",
        ),
        (
            "restricted_keys",
            {"scopes": [{"resource_type": DEVBOXES, "access_level": "ACCESS_LEVEL_NONE"}]},
            "scopes",
        ),
        (
            "restricted_keys",
            {"scopes": [{"resource_type": DEVBOXES, "access_level": "ACCESS_LEVEL_READ", "but": "x"}]},
            "scopes[0].but",
        ),
    ],
)
def test_bad_bodies(client: httpx.Client, path: str, body: dict[str, object], blamed: str) -> None:
    answer = client.post(f"/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, blamed), answer.text


def test_a_restricted_key_does_what_its_scopes_say(server: ApiServer, client: httpx.Client) -> None:
    policy = client.post("/v1/network-policies", json={"name": "p"}).json()
    place = f"/v1/network-policies/{policy['id']}"
    with server.client(restrict(client, devboxes="read", objects="write")) as other:
        assert other.get(place).json() == policy
        assert other.post(f"{place}/explain", json={"hostname": "example.com"}).status_code == 200
        assert other.get("/v1/devboxes").status_code == 200
        assert other.post("/v1/objects", json={"name": "o", "content_type": "text"}).status_code == 200
        for method, path in (
            ("POST", "/v1/network-policies"),
            ("POST", place),
            ("POST", f"{place}/delete"),
            ("POST", "/v1/devboxes"),
            ("POST", "/v1/devboxes/create_and_await_running"),
            ("GET", "/v1/secrets"),
            ("POST", "/v1/secrets"),
            ("GET", "/v1/gateway-configs"),
            ("GET", "/v1/accounts/me"),
            ("POST", "/v1/apikeys"),
            ("POST", "/v1/restricted_keys"),
        ):
            # Not even a bad body is judged.
            refused = other.request(method, path, content=b"{")
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), (method, path)
    assert client.get(place).json() == policy


def test_a_restricted_key_hands_on_no_more_than_it_has(server: ApiServer, client: httpx.Client) -> None:
    def scope(resource: str, level: str) -> dict[str, object]:
        return {"scopes": [{"resource_type": resource, "access_level": f"ACCESS_LEVEL_{level}"}]}

    with server.client(restrict(client, account="write", devboxes="read")) as other:
        assert other.post("/v1/apikeys", json={}).status_code == 403
        for resource, level in ((DEVBOXES, "WRITE"), (OBJECTS, "READ")):
            refused = other.post("/v1/restricted_keys", json=scope(resource, level))
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert other.post("/v1/restricted_keys", json=scope(DEVBOXES, "READ")).status_code == 200
        assert other.post("/v1/restricted_keys", json=scope(ACCOUNT, "WRITE")).status_code == 200


READING_POSTS = {
    "/v1/network-policies/{id}/explain",
    "/v1/network-policies/{id}/simulate",
    "/v1/devboxes/{id}/explain",
    "/v1/network-policies/{id}/suggest",
    "/v1/devboxes/{id}/wait_for_status",
    "/v1/devboxes/{devbox_id}/executions/{execution_id}/wait_for_status",
    "/v1/devboxes/{id}/read_file_contents",
    "/v1/devboxes/{id}/download_file",
    "/v1/blueprints/preview",
}
FULL_KEYS_ONLY = {"/v1/apikeys"}


def test_each_route_says_what_it_needs() -> None:
    routes = [route for router in app._ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    authenticated = [route for route in routes if "context" in {p.name for p in route.dependant.dependencies}]
    assert len(authenticated) > 40
    for route in authenticated:
        for method in route.methods or ():
            needed = find_requirements(method, route.path)
            if route.path in FULL_KEYS_ONLY:
                assert needed is None
                continue
            assert needed, f"{method} {route.path} takes full keys only; api/scopes.py should say what it needs"
            is_reading = method == "GET" or route.path in READING_POSTS
            assert needed[0].level.endswith("_READ" if is_reading else "_WRITE"), (method, route.path)


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/v1/devboxes/disk_snapshots", [(SNAPSHOTS, "READ")]),
        ("POST", "/v1/devboxes/disk_snapshots/{id}/delete", [(SNAPSHOTS, "WRITE")]),
        ("POST", "/v1/devboxes/{id}/snapshot_disk", [(DEVBOXES, "WRITE"), (SNAPSHOTS, "WRITE")]),
        ("POST", "/v1/devboxes/{id}/snapshot_disk_async", [(DEVBOXES, "WRITE"), (SNAPSHOTS, "WRITE")]),
        ("POST", "/v1/blueprints", [(BLUEPRINTS, "WRITE")]),
        ("POST", "/v1/webhooks", [(ACCOUNT, "WRITE"), (DEVBOXES, "READ")]),
        ("GET", "/v1/webhooks/{id}/deliveries", [(ACCOUNT, "READ"), (DEVBOXES, "READ")]),
        ("POST", "/v1/devboxesque", None),
        ("GET", "/v1/anything", None),
    ],
)
def test_what_routes_need(method: str, path: str, needed: list[tuple[str, str]] | None) -> None:
    found = find_requirements(method, path)
    shown = None if found is None else [(one.resource.value, one.level.removeprefix("ACCESS_LEVEL_")) for one in found]
    assert shown == needed
