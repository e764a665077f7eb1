"""One version of a policy, the difference of two, going back."""

from typing import Any

import httpx
import pytest

from outgate.control.ids import IdMaker, IdPrefix
from support.api_server import ApiServer

POLICIES = "/v1/network-policies"


@pytest.fixture
def policy_id(client: httpx.Client) -> str:
    name = IdMaker().make(IdPrefix.POLICY, 0)
    rules = [{"cidr": "8.8.8.0/24"}, {"cidr": "9.9.9.0/24", "ports": [{"port": 53}]}]
    body = {
        "name": name,
        "description": "first",
        "allowed_hostnames": ["a.example", "b.example"],
        "allowed_cidrs": rules,
    }
    made: str = client.post(POLICIES, json=body).json()["id"]
    update(client, made, allowed_hostnames=["b.example", "c.example"], allowed_cidrs=rules[:1], allow_all=True)
    update(client, made, name=f"{name}-renamed", allow_all=False)
    return made


def update(client: httpx.Client, policy_id: str, **body: Any) -> None:
    assert client.post(f"{POLICIES}/{policy_id}", json=body).status_code == 200


def test_one_version_and_the_difference_of_two(client: httpx.Client, policy_id: str) -> None:
    first = client.get(f"{POLICIES}/{policy_id}/revisions/1").json()
    assert (first["revision"], first["egress"]["allowed_hostnames"]) == (1, ["a.example", "b.example"])
    diff = client.get(f"{POLICIES}/{policy_id}/revisions/2/diff").json()
    assert diff == {
        "policy_id": policy_id,
        "revision": 2,
        "against": 1,
        "flags": {"allow_all": True},
        "hostnames_added": ["c.example"],
        "hostnames_removed": ["a.example"],
        "cidrs_added": [],
        "cidrs_removed": [{"cidr": "9.9.9.0/24", "ports": [{"port": 53, "end_port": None, "protocol": None}]}],
        "enforcement": None,
    }
    back = client.get(f"{POLICIES}/{policy_id}/revisions/1/diff", params={"against": 3}).json()
    assert (back["flags"], back["hostnames_added"], back["hostnames_removed"]) == ({}, ["a.example"], ["c.example"])


def test_going_back_makes_a_new_version_with_the_old_rules_alone(client: httpx.Client, policy_id: str) -> None:
    before = client.get(f"{POLICIES}/{policy_id}").json()
    answer = client.post(f"{POLICIES}/{policy_id}/restore", json={"revision": 1})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-outgate-enforced"] == "0/0"
    view = answer.json()
    assert (view["name"], view["description"]) == (before["name"], before["description"])
    first = client.get(f"{POLICIES}/{policy_id}/revisions/1").json()
    assert view["egress"] == first["egress"]
    newest = client.get(f"{POLICIES}/{policy_id}/revisions").json()["revisions"][0]
    assert (newest["revision"], newest["egress"]) == (4, first["egress"])
    empty = client.get(f"{POLICIES}/{policy_id}/revisions/4/diff", params={"against": 1}).json()
    assert (empty["hostnames_added"], empty["cidrs_added"], empty["cidrs_removed"], empty["flags"]) == ([], [], [], {})


def test_what_is_not_there_and_strangers(server: ApiServer, client: httpx.Client, policy_id: str) -> None:
    missing = client.get(f"{POLICIES}/{policy_id}/revisions/9")
    assert (missing.status_code, missing.json()["code"]) == (404, "revision_not_found")
    assert client.get(f"{POLICIES}/{policy_id}/revisions/3/diff", params={"against": 9}).status_code == 404
    assert client.post(f"{POLICIES}/{policy_id}/restore", json={"revision": 9}).status_code == 404
    with server.client(server.new_account(policy_id).api_key) as stranger:
        assert stranger.get(f"{POLICIES}/{policy_id}/revisions/1").status_code == 404
        assert stranger.get(f"{POLICIES}/{policy_id}/revisions/2/diff").status_code == 404
        assert stranger.post(f"{POLICIES}/{policy_id}/restore", json={"revision": 1}).status_code == 404


@pytest.mark.parametrize("body", [{}, {"revision": 0}, {"revision": "one"}, {"revision": None}])
def test_bad_restores(client: httpx.Client, policy_id: str, body: dict[str, Any]) -> None:
    answer = client.post(f"{POLICIES}/{policy_id}/restore", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, "revision")


@pytest.mark.parametrize("place", ["revisions/0", "revisions/x", "revisions/1/diff?against=0"])
def test_bad_numbers(client: httpx.Client, policy_id: str, place: str) -> None:
    assert client.get(f"{POLICIES}/{policy_id}/{place}").status_code == 400
