"""The five operations, over HTTP."""

import re
from typing import Any

import httpx
import pytest

POLICIES = "/v1/network-policies"
EGRESS_DEFAULT: dict[str, Any] = {
    "allow_all": False,
    "allow_devbox_to_devbox": False,
    "allow_agent_gateway": False,
    "allow_mcp_gateway": False,
    "allow_runloop_mirrors": False,
    "allowed_hostnames": [],
    "allowed_cidrs": [],
}
FULL: dict[str, Any] = {
    "description": "first",
    "allow_all": False,
    "allow_devbox_to_devbox": True,
    "allow_agent_gateway": True,
    "allow_mcp_gateway": True,
    "allow_runloop_mirrors": True,
    "allowed_hostnames": ["GitHub.com", "*.PyPI.org.", "localhost"],
    "allowed_cidrs": [
        {"cidr": "10.0.0.0/8", "ports": [{"port": 443, "end_port": None, "protocol": "TCP"}]},
        {"cidr": "192.0.2.0/24", "ports": None},
    ],
}
# field → another value than FULL has
OTHERS: dict[str, Any] = {
    "name": "another name",
    "description": "second",
    "allow_all": True,
    "allow_devbox_to_devbox": False,
    "allow_agent_gateway": False,
    "allow_mcp_gateway": False,
    "allow_runloop_mirrors": False,
    "allowed_hostnames": ["b.example", "a.example"],
    "allowed_cidrs": [{"cidr": "0.0.0.0/0", "ports": [{"port": 1, "end_port": 65535, "protocol": None}]}],
}


def create(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(POLICIES, json={"name": "p", **body})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def flatten(view: dict[str, Any]) -> dict[str, Any]:
    return {"name": view["name"], "description": view["description"], **view["egress"]}


def test_a_bare_policy_denies_everything_and_shows_all_fields(client: httpx.Client) -> None:
    view = create(client)
    assert view["egress"] == EGRESS_DEFAULT
    runloops = {"id", "name", "description", "create_time_ms", "update_time_ms", "egress"}
    assert set(view) == {*runloops, "enforcement", "warnings"}
    assert (view["enforcement"], view["warnings"]) == ("enforce", [])
    assert view["description"] is None
    assert view["create_time_ms"] == view["update_time_ms"]
    assert re.fullmatch(r"npol_[0-9A-Za-z]{21}", view["id"])
    assert client.get(f"{POLICIES}/{view['id']}").json() == view


def test_everything_comes_back_in_the_order_and_spelling_it_was_given(client: httpx.Client) -> None:
    view = create(client, **FULL)
    assert flatten(view) == {"name": "p", **FULL}
    assert flatten(client.get(f"{POLICIES}/{view['id']}").json()) == {"name": "p", **FULL}


def test_null_at_creation_means_the_default(client: httpx.Client) -> None:
    view = create(client, **dict.fromkeys(FULL))
    assert view["egress"] == EGRESS_DEFAULT


@pytest.mark.parametrize("field", OTHERS)
def test_a_field_alone_replaces_itself_and_nothing_else(client: httpx.Client, field: str) -> None:
    before = create(client, **FULL)
    answer = client.post(f"{POLICIES}/{before['id']}", json={field: OTHERS[field]})
    assert answer.status_code == 200
    expected = flatten(before) | {field: OTHERS[field]}
    assert flatten(answer.json()) == expected
    assert flatten(client.get(f"{POLICIES}/{before['id']}").json()) == expected
    assert answer.json()["create_time_ms"] == before["create_time_ms"]
    assert answer.json()["update_time_ms"] >= before["update_time_ms"]


@pytest.mark.parametrize("body", [{}, None, *({field: None} for field in OTHERS), dict.fromkeys(OTHERS)])
def test_absent_and_null_change_nothing_not_even_the_time(client: httpx.Client, body: dict[str, Any] | None) -> None:
    before = create(client, **FULL)
    if body is None:
        answer = client.post(f"{POLICIES}/{before['id']}", headers={"content-type": "application/json"})
    else:
        answer = client.post(f"{POLICIES}/{before['id']}", json=body)
    assert (answer.status_code, answer.json()) == (200, before)
    assert len(client.get(f"{POLICIES}/{before['id']}/revisions").json()["revisions"]) == 1


@pytest.mark.parametrize("field", ["allowed_hostnames", "allowed_cidrs"])
def test_an_empty_list_clears(client: httpx.Client, field: str) -> None:
    before = create(client, **FULL)
    answer = client.post(f"{POLICIES}/{before['id']}", json={field: []})
    assert flatten(answer.json()) == flatten(before) | {field: []}


def test_an_empty_description_clears(client: httpx.Client) -> None:
    before = create(client, **FULL)
    assert client.post(f"{POLICIES}/{before['id']}", json={"description": ""}).json()["description"] == ""


def test_allow_all_covers_devbox_to_devbox_and_gives_it_back(client: httpx.Client) -> None:
    view = create(client, allow_all=True)
    assert view["egress"]["allow_devbox_to_devbox"] is True
    back = client.post(f"{POLICIES}/{view['id']}", json={"allow_all": False}).json()
    assert back["egress"]["allow_devbox_to_devbox"] is False


def test_names_are_unique_and_the_refusal_names_the_holder(client: httpx.Client, stranger: httpx.Client) -> None:
    first = create(client, name="mine")
    answer = client.post(POLICIES, json={"name": "mine"})
    assert answer.status_code == 409
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["message"] == (
        f"A network policy named 'mine' already exists: {first['id']}. Update it, or choose another name."
    )
    other = create(client, name="other")
    assert client.post(f"{POLICIES}/{other['id']}", json={"name": "mine"}).status_code == 409
    assert client.post(f"{POLICIES}/{other['id']}", json={"name": "other"}).status_code == 200
    assert stranger.post(POLICIES, json={"name": "mine"}).status_code == 200


def test_deleting_answers_the_last_view_and_frees_the_name(client: httpx.Client) -> None:
    view = create(client, name="mine", **{k: v for k, v in FULL.items() if k != "description"})
    answer = client.post(f"{POLICIES}/{view['id']}/delete", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (200, view)
    for gone in (
        client.get(f"{POLICIES}/{view['id']}"),
        client.post(f"{POLICIES}/{view['id']}", json={}),
        client.post(f"{POLICIES}/{view['id']}/delete"),
        client.get(f"{POLICIES}/{view['id']}/revisions"),
        client.post(f"{POLICIES}/{view['id']}/explain", json={"hostname": "a.example"}),
    ):
        assert gone.status_code == 404
        assert gone.json()["message"] == f"NetworkPolicy {view['id']} not found."
    create(client, name="mine")


def test_another_accounts_policies_do_not_exist(client: httpx.Client, stranger: httpx.Client) -> None:
    view = create(client)
    for answer in (
        stranger.get(f"{POLICIES}/{view['id']}"),
        stranger.post(f"{POLICIES}/{view['id']}", json={"allow_all": True}),
        stranger.post(f"{POLICIES}/{view['id']}/delete"),
        stranger.get(f"{POLICIES}/{view['id']}/revisions"),
        stranger.post("/v1/devboxes", json={"launch_parameters": {"network_policy_id": view["id"]}}),
    ):
        assert answer.status_code in (404, 400)
    assert stranger.get(POLICIES, params={"id": view["id"]}).json()["network_policies"] == []
    assert stranger.get("/v1/devboxes").json()["devboxes"] == []
    assert client.get(f"{POLICIES}/{view['id']}").json() == view


@pytest.mark.parametrize(
    "bad_id", ["x", "npol_", "npol_" + "a" * 21, "dbx_" + "a" * 21, "npol_" + "%00" * 21, "%FF%FE"]
)
def test_unknown_ids_are_not_found(client: httpx.Client, bad_id: str) -> None:
    for answer in (
        client.get(f"{POLICIES}/{bad_id}"),
        client.post(f"{POLICIES}/{bad_id}", json={"allow_all": True}),
        client.post(f"{POLICIES}/{bad_id}/delete"),
    ):
        assert answer.status_code == 404
        assert answer.json()["code"] == "network_policy_not_found"


def test_the_limit_of_policies(client: httpx.Client) -> None:
    for n in range(100):
        create(client, name=f"p{n}")
    answer = client.post(POLICIES, json={"name": "one too many"})
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        "The account already has 100 network policies, the most it may have; delete one first."
    )
    newest = client.get(POLICIES, params={"limit": 1}).json()["network_policies"][0]
    client.post(f"{POLICIES}/{newest['id']}/delete")
    create(client, name="now there is room")


def test_revisions_say_what_changed_when_and_by_which_key(client: httpx.Client) -> None:
    view = create(client, allowed_hostnames=["a.example"])
    for n in range(4):
        client.post(f"{POLICIES}/{view['id']}", json={"allowed_hostnames": [f"{n}.example"], "description": f"d{n}"})
    page = client.get(f"{POLICIES}/{view['id']}/revisions", params={"limit": 3}).json()
    assert [r["revision"] for r in page["revisions"]] == [5, 4, 3]
    assert page["has_more"] is True
    rest = client.get(f"{POLICIES}/{view['id']}/revisions", params={"starting_after": 3}).json()
    assert [(r["revision"], r["egress"]["allowed_hostnames"]) for r in rest["revisions"]] == [
        (2, ["0.example"]),
        (1, ["a.example"]),
    ]
    assert rest["has_more"] is False
    assert {r["key_id"][:4] for r in rest["revisions"]} == {"key_"}


def test_explain(client: httpx.Client) -> None:
    view = create(client, allowed_hostnames=["*.example.com"])
    answer = client.post(f"{POLICIES}/{view['id']}/explain", json={"hostname": "a.example.com", "port": 443})
    assert answer.status_code == 200
    said = answer.json()
    assert (said["verdict"], said["reason"], said["rule"]) == (
        "allow",
        "hostname",
        "allowed_hostnames[0] *.example.com",
    )
    denied = client.post(f"{POLICIES}/{view['id']}/explain", json={"address": "127.0.0.1", "protocol": "TCP"}).json()
    assert (denied["verdict"], denied["reason"]) == ("deny", "floor_loopback")
    assert (denied["policy_id"], denied["revision"]) == (view["id"], 1)
