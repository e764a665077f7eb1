"""What holds for each operation of the API's own description, whatever it does."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from outgate.control.configuration import ApiSettings
from support.api_server import ApiServer

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPEN = {"/healthz", "/readyz"}


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server that lets anybody show any number of wrong keys."""
    settings = ApiSettings(auth_failures_max=0)
    with ApiServer(tmp_path_factory.mktemp("routes"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def paths(unlimited: ApiServer) -> dict[str, dict[str, Any]]:
    with httpx.Client() as client:
        found: dict[str, dict[str, Any]] = client.get(f"{unlimited.base_url}/openapi.json").json()["paths"]
    return found


def fill(path: str) -> str:
    """The path with something in the place of each parameter."""
    return re.sub(r"\{[^}]+\}", "dbx_0123456789abcdefghijk", path)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Basic dXNlcjpwYXNz",
        "Bearer " + "x" * 5000,
        "Bearer k' OR '1'='1",
        "Bearer \xff\xfe",
    ],
)
def test_nothing_is_done_without_a_valid_key(
    unlimited: ApiServer, paths: dict[str, dict[str, Any]], authorization: str | None
) -> None:
    """Before the path's ids and the body are looked at: who has no key learns nothing of them."""
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
    with httpx.Client(base_url=unlimited.base_url, headers=headers, timeout=40) as client:
        for path, operations in paths.items():
            for method in operations:
                answer = client.request(method.upper(), fill(path), content=b"{")
                expected = 200 if path in OPEN else 401
                assert answer.status_code == expected, (method, path, answer.text)
                if expected == 401:
                    assert answer.json()["code"] == "unauthorized", (method, path)
                    assert answer.headers["www-authenticate"] == "Bearer"


def matches(other: str, path: str, method: str, paths: dict[str, dict[str, Any]]) -> bool:
    """Whether another template takes the path with that method."""
    return method.lower() in paths[other] and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", other), path) is not None


def test_methods_that_are_not_there_are_named_in_allow(unlimited: ApiServer, paths: dict[str, dict[str, Any]]) -> None:
    with unlimited.client(unlimited.new_account("methods").api_key) as client:
        for path, operations in paths.items():
            for method in set(METHODS) - {method.upper() for method in operations}:
                answer = client.request(method, fill(path))
                if answer.status_code == 404 and any(matches(other, path, method, paths) for other in paths):
                    continue  # "disk_snapshots" reads as the id of a devbox
                assert answer.status_code == 405, (method, path, answer.text)
                allowed = {name.strip() for name in answer.headers["allow"].split(",")}
                assert {name.upper() for name in operations} <= allowed, (method, path)
                assert method not in allowed


CREATED = {
    "/v1/network-policies": {"name": "p"},
    "/v1/devboxes": {},
    "/v1/blueprints": {"name": "b"},
    "/v1/objects": {"name": "o", "content_type": "text"},
    "/v1/gateway-configs": {"name": "g", "endpoint": "https://example.com", "auth_mechanism": {"type": "bearer"}},
    "/v1/webhooks": {"url": "https://hooks.example/", "events": ["flow.denied"]},
    "/v1/mcp-configs": {"name": "m", "endpoint": "https://example.com", "allowed_tools": ["*"]},
}


def test_a_key_of_one_account_finds_nothing_of_another(unlimited: ApiServer, paths: dict[str, dict[str, Any]]) -> None:
    """Of each kind of thing: what one account made, another reads, changes and lists as if it were not there."""
    made = {}
    with unlimited.client(unlimited.new_account("owner").api_key) as owner:
        for path, body in CREATED.items():
            answer = owner.post(path, json=body)
            assert answer.status_code == 200, (path, answer.text)
            made[path] = answer.json()["id"]
    asked = 0
    with unlimited.client(unlimited.new_account("stranger").api_key) as stranger:
        for path, operations in paths.items():
            root = next((root for root in CREATED if path.startswith(f"{root}/{{")), "")
            for method in operations if root else ():
                answers = []
                for given in (made[root], _unknown_like(made[root])):
                    there = fill(re.sub(r"\{[^}]+\}", given, path, count=1))
                    answer = stranger.request(method.upper(), there, json={})
                    said = answer.json()
                    answers.append((answer.status_code, said["code"], said["message"].replace(given, "ID")))
                assert answers[0] == answers[1], (method, path)
                assert answers[0][0] in (400, 404), (method, path, answers)
                asked += 1
        for path, there in made.items():
            assert there not in stranger.get(path).text
    assert asked > 40


def _unknown_like(given: str) -> str:
    """An id of the same kind that nothing has."""
    prefix, _, digits = given.partition("_")
    return f"{prefix}_{digits[::-1]}"
