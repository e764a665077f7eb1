"""Secrets over the wire: what is shown, what is not, and what devboxes get."""

import hashlib
import sqlite3
from typing import Any

import httpx
import pytest

from support.api_server import ApiServer

UNKNOWN = "sec_" + "0" * 21
VALUE = "hunter2-hunter2"


def create(client: httpx.Client, name: str = "TOKEN", value: str = VALUE) -> dict[str, Any]:
    answer = client.post("/v1/secrets", json={"name": name, "value": value})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def test_the_operations_by_name_and_by_id(client: httpx.Client) -> None:
    view = create(client)
    assert set(view) == {"id", "name", "create_time_ms", "update_time_ms"}
    assert view["id"].startswith("sec_")
    for place in ("TOKEN", f"id/{view['id']}"):
        assert client.get(f"/v1/secrets/{place}").json() == view
    changed = client.post("/v1/secrets/TOKEN", json={"value": "other"}).json()
    assert {**changed, "update_time_ms": 0} == {**view, "update_time_ms": 0}
    again = client.post(f"/v1/secrets/id/{view['id']}/update", json={"value": "third"}).json()
    assert again["update_time_ms"] >= changed["update_time_ms"] >= view["update_time_ms"]
    other = create(client, "OTHER")
    page = client.get("/v1/secrets").json()
    assert page == {"secrets": [other, again], "has_more": False, "total_count": 2}
    assert client.get("/v1/secrets?limit=1").json() == {"secrets": [other], "has_more": True, "total_count": 2}
    assert client.post("/v1/secrets/TOKEN/delete").json() == again
    assert client.post(f"/v1/secrets/id/{other['id']}/delete").json() == other
    for method, path in (("GET", ""), ("POST", "/delete")):
        assert client.request(method, f"/v1/secrets/TOKEN{path}").status_code == 404
        assert client.request(method, f"/v1/secrets/id/{view['id']}{path}").status_code == 404
    assert create(client)["id"] != view["id"]


def test_a_name_can_be_that_of_a_route(client: httpx.Client) -> None:
    view = create(client, "id")
    assert client.get("/v1/secrets/id").json() == view
    assert client.post("/v1/secrets/id", json={"value": "x"}).json()["id"] == view["id"]
    assert client.post("/v1/secrets/id/delete").json()["id"] == view["id"]


def test_a_taken_name_is_refused_with_400(client: httpx.Client) -> None:
    create(client)
    refused = client.post("/v1/secrets", json={"name": "TOKEN", "value": "x"})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (400, "name_taken", "name")
    assert create(client, "token")["name"] == "token"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"value": "x"}, "name"),
        ({"name": "A"}, "value"),
        ({"name": "A", "value": 7}, "value"),
        ({"name": "A", "value": None}, "value"),
        ({"name": "", "value": "x"}, "name"),
        ({"name": "1A", "value": "x"}, "name"),
        ({"name": "A-B", "value": "x"}, "name"),
        ({"name": "A\n", "value": "x"}, "name"),
        ({"name": "Ä", "value": "x"}, "name"),
        ({"name": "A" * 257, "value": "x"}, "name"),
        ({"name": "A", "value": VALUE + "\x00"}, "value"),
        ({"name": "A", "value": VALUE * 5000}, "value"),
        ({"name": "A", "value": "ä" * 32_769}, "value"),
    ],
)
def test_bad_bodies_are_refused_without_showing_the_value(
    client: httpx.Client, body: dict[str, object], field: str
) -> None:
    answer = client.post("/v1/secrets", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
    assert VALUE not in answer.text
    assert client.get("/v1/secrets").json()["secrets"] == []


def test_nothing_of_it_is_anothers(client: httpx.Client, stranger: httpx.Client) -> None:
    view = create(client)
    for secret in ("TOKEN", f"id/{view['id']}", f"id/{UNKNOWN}", "id/TOKEN", "%00", "A%0AB"):
        assert stranger.get(f"/v1/secrets/{secret}").status_code == 404, secret
        assert stranger.post(f"/v1/secrets/{secret}/delete").status_code == 404, secret
        update = f"{secret}/update" if secret.startswith("id/") else secret
        assert stranger.post(f"/v1/secrets/{update}", json={"value": "x"}).status_code == 404, secret
    assert stranger.get("/v1/secrets").json()["secrets"] == []
    assert client.get("/v1/secrets/TOKEN").json() == view


def test_repeated_requests(client: httpx.Client) -> None:
    def send(path: str, body: dict[str, str] | None = None, key: str = "k") -> httpx.Response:
        return client.post(path, json=body, headers={"x-request-id": key})

    first = send("/v1/secrets", {"name": "A", "value": "x"})
    assert send("/v1/secrets", {"name": "A", "value": "x"}).json() == first.json()
    assert send("/v1/secrets", {"name": "A", "value": "y"}).status_code == 409
    changed = send("/v1/secrets/A", {"value": "y"}).json()
    assert send("/v1/secrets/A", {"value": "y"}).json() == changed
    deleted = send("/v1/secrets/A/delete")
    assert deleted.status_code == 200
    # The delete that is sent again answers what it deleted; a new secret of that name is not its.
    anew = send("/v1/secrets", {"name": "A", "value": "x"}).json()
    assert anew["id"] != first.json()["id"]
    assert send("/v1/secrets/A/delete").json()["id"] == first.json()["id"]
    assert client.get("/v1/secrets/A").json() == anew


def test_no_value_lies_in_the_store_in_clear_nor_a_digest_of_its_body(server: ApiServer, client: httpx.Client) -> None:
    body = b'{"name":"CLEAR","value":"findable-value"}'
    headers = {"x-request-id": "blind", "content-type": "application/json"}
    assert client.post("/v1/secrets", content=body, headers=headers).status_code == 200
    path = server.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        dump = "\n".join(database.iterdump())
        bodies = {row[0] for row in database.execute("SELECT body_digest FROM requests")}
    database.close()
    assert "CLEAR" in dump
    assert b"findable-value".hex().upper() not in dump
    assert "findable-value" not in dump
    # Digests of short bodies can be tried out offline; this one is keyed.
    assert hashlib.sha256(body).digest() not in bodies


def test_an_account_has_so_many_secrets_and_no_more(server: ApiServer, client: httpx.Client) -> None:
    for n in range(server.services.settings.secrets_max):
        create(client, f"S{n}")
    refused = client.post("/v1/secrets", json={"name": "ONE_MORE", "value": "x"})
    assert (refused.status_code, refused.json()["code"]) == (400, "secret_limit")
