"""``x-request-id``: the same call twice is one call."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from sqlalchemy import text

from outgate.clock import wall_ms
from outgate.control.repeats import RETENTION_MS, forget_old_requests
from support.api_server import ApiServer

POLICIES = "/v1/network-policies"


def post(client: httpx.Client, path: str, body: Any, key: str) -> httpx.Response:
    return client.post(path, json=body, headers={"x-request-id": key})


def test_a_create_sent_twice_makes_one_policy(client: httpx.Client) -> None:
    first, second = [post(client, POLICIES, {"name": "p"}, "k1") for _ in range(2)]
    assert (second.status_code, second.json()) == (200, first.json())
    assert client.get(POLICIES).json()["total_count"] == 1


def test_another_key_is_another_call(client: httpx.Client) -> None:
    post(client, POLICIES, {"name": "p"}, "k1")
    assert post(client, POLICIES, {"name": "p"}, "k2").status_code == 409


def test_keys_of_accounts_and_paths_do_not_meet(client: httpx.Client, stranger: httpx.Client) -> None:
    mine = post(client, POLICIES, {"name": "p"}, "k1").json()
    theirs = post(stranger, POLICIES, {"name": "p"}, "k1").json()
    assert mine["id"] != theirs["id"]
    box = post(client, "/v1/devboxes", {"name": "p"}, "k1").json()
    assert box["id"].startswith("dbx_")
    updated = post(client, f"{POLICIES}/{mine['id']}", {"name": "p", "allow_all": True}, "k1").json()
    assert updated["egress"]["allow_all"] is True


def test_a_policy_that_was_deleted_since_is_not_handed_back(client: httpx.Client) -> None:
    # As a program does that uses a policy's own name as the key.
    first = post(client, POLICIES, {"name": "p"}, "p").json()
    client.post(f"{POLICIES}/{first['id']}/delete")
    second = post(client, POLICIES, {"name": "p"}, "p")
    assert second.status_code == 200
    assert second.json()["id"] != first["id"]
    assert post(client, POLICIES, {"name": "p"}, "p").json()["id"] == second.json()["id"]


def test_refusals_are_not_replayed(client: httpx.Client) -> None:
    existing = post(client, POLICIES, {"name": "p"}, "k1").json()
    assert post(client, POLICIES, {"name": "p"}, "k2").status_code == 409
    client.post(f"{POLICIES}/{existing['id']}/delete")
    assert post(client, POLICIES, {"name": "p"}, "k2").status_code == 200
    assert post(client, POLICIES, {"name": ""}, "k3").status_code == 400
    assert post(client, POLICIES, {"name": "q"}, "k3").status_code == 200


def test_a_key_used_with_another_body_is_refused_not_replayed(client: httpx.Client) -> None:
    post(client, POLICIES, {"name": "p", "allow_all": True}, "k1")
    answer = post(client, POLICIES, {"name": "p"}, "k1")
    assert (answer.status_code, answer.json()["code"]) == (409, "request_id_reused")
    assert answer.headers["x-should-retry"] == "false"


def test_an_update_sent_again_does_not_undo_what_came_after(client: httpx.Client) -> None:
    policy = post(client, POLICIES, {"name": "p"}, "k1").json()
    path = f"{POLICIES}/{policy['id']}"
    post(client, path, {"allowed_hostnames": ["a.example"]}, "u1")
    post(client, path, {"allowed_hostnames": ["b.example"]}, "u2")
    late = post(client, path, {"allowed_hostnames": ["a.example"]}, "u1")
    assert late.json()["egress"]["allowed_hostnames"] == ["b.example"]
    assert len(client.get(path + "/revisions").json()["revisions"]) == 3


def test_a_delete_sent_twice_answers_the_deleted_policy_twice(client: httpx.Client) -> None:
    policy = post(client, POLICIES, {"name": "p"}, "k1").json()
    answers = [post(client, f"{POLICIES}/{policy['id']}/delete", {}, "d1") for _ in range(2)]
    assert [(a.status_code, a.json()) for a in answers] == [(200, policy)] * 2
    assert post(client, f"{POLICIES}/{policy['id']}/delete", {}, "d2").status_code == 404


def test_devboxes_too(client: httpx.Client) -> None:
    path = "/v1/devboxes/create_and_await_running"
    first, second = [post(client, path, {"name": "d"}, "k1").json() for _ in range(2)]
    assert first["id"] == second["id"]
    assert client.get("/v1/devboxes").json()["total_count"] == 1


def test_the_same_call_many_times_at_once(client: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: post(client, POLICIES, {"name": "p"}, "k1"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_keys_are_forgotten_after_a_day(client: httpx.Client, server: ApiServer) -> None:
    first = post(client, POLICIES, {"name": "p"}, "k1").json()

    def age(by_ms: int) -> None:
        statement = text("UPDATE requests SET time_ms = time_ms - :by")
        server.database.write_now(lambda tx: tx.execute(statement, {"by": by_ms}))

    age(RETENTION_MS - 60_000)
    assert post(client, POLICIES, {"name": "p"}, "k1").json()["id"] == first["id"]
    age(60_001)
    # Remembered still, but too old: the call is made, and finds the name taken.
    assert post(client, POLICIES, {"name": "p"}, "k1").status_code == 409
    assert asyncio.run(forget_old_requests(server.services, wall_ms())) >= 1
    left = server.database.read_now(
        lambda tx: tx.execute(
            text("SELECT count(*) FROM requests WHERE time_ms <= :t"), {"t": wall_ms() - RETENTION_MS}
        )
    )
    assert left.scalar_one() == 0
