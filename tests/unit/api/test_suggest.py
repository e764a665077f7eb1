"""Suggestions and policies that only report, over the API."""

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


def make(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(POLICIES, json={"name": f"suggested-{wall_ms()}", **body})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def tell(client: httpx.Client, host: httpx.Client, policy_id: str, number: int, *kinds: dict[str, Any]) -> str:
    devbox: str = client.post("/v1/devboxes", json={"launch_parameters": {"network_policy_id": policy_id}}).json()["id"]
    records = tuple(
        msgspec.structs.replace(FlowRecord(wall_ms(), devbox, policy_id, 1, "report_only", "no_rule", "relay"), **kind)
        for kind in kinds
    )
    batch = msgspec.json.encode(FlowBatch(f"suggest-{policy_id}", number, records))
    assert host.post("/internal/v1/flows", content=batch).status_code == 200
    return devbox


def suggest(client: httpx.Client, policy_id: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{POLICIES}/{policy_id}/suggest", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def web(name: str, **other: Any) -> dict[str, Any]:
    return {"name": name, "address": "1.2.3.4", "port": 443, "protocol": "tls"} | other


def hosts(said: dict[str, Any]) -> dict[str, bool]:
    return {one["hostname"]: one["is_covered"] for one in said["allowed_hostnames"]}


def test_enforcement_is_kept_shown_and_gone_back_to(client: httpx.Client) -> None:
    policy = make(client, enforcement="report_only")
    assert (policy["enforcement"], [one["code"] for one in policy["warnings"]]) == ("report_only", ["report_only"])
    place = f"{POLICIES}/{policy['id']}"
    kept = client.post(place, json={"allowed_hostnames": ["a.example"], "enforcement": None}).json()
    assert kept["enforcement"] == "report_only"
    enforced = client.post(place, json={"enforcement": "enforce"}).json()
    assert (enforced["enforcement"], enforced["warnings"]) == ("enforce", [])
    revisions = client.get(f"{place}/revisions").json()["revisions"]
    assert [one["enforcement"] for one in revisions] == ["enforce", "report_only", "report_only"]
    assert client.get(f"{place}/revisions/3/diff").json()["enforcement"] == "enforce"
    assert client.get(f"{place}/revisions/2/diff").json()["enforcement"] is None
    back = client.post(f"{place}/restore", json={"revision": 2}).json()
    assert (back["enforcement"], back["egress"]["allowed_hostnames"]) == ("report_only", ["a.example"])
    listed = client.get(POLICIES, params={"enforcement": "report_only", "limit": 5000}).json()["network_policies"]
    assert policy["id"] in {one["id"] for one in listed}
    assert {one["enforcement"] for one in listed} == {"report_only"}


@pytest.mark.parametrize("value", ["audit", "", "REPORT_ONLY", True, 1])
def test_an_unknown_enforcement_is_refused(client: httpx.Client, value: object) -> None:
    answer = client.post(POLICIES, json={"name": f"wrong-{wall_ms()}", "enforcement": value})
    assert (answer.status_code, answer.json()["field"]) == (400, "enforcement")


def test_dangerous_entries_are_warned_of(client: httpx.Client) -> None:
    view = make(client, allowed_hostnames=["ok.example", "*.github.io", "webhook.site"])
    assert [(one["code"], one["field"]) for one in view["warnings"]] == [
        ("public_suffix", "allowed_hostnames[1]"),
        ("exfiltration", "allowed_hostnames[2]"),
    ]


def test_explain_says_that_it_passes_and_why_it_would_not(client: httpx.Client) -> None:
    policy = make(client, enforcement="report_only", allowed_cidrs=[{"cidr": "8.8.8.0/24"}])
    place = f"{POLICIES}/{policy['id']}/explain"
    by_name = client.post(place, json={"hostname": "a.example", "address": "8.8.8.8"}).json()
    assert (by_name["verdict"], by_name["reason"], by_name["rule"]) == (
        "report_only",
        "name_not_allowed",
        "enforcement report_only",
    )
    assert by_name["sentence"].startswith("Let through, because the policy only reports.")
    assert [check["verdict"] for check in by_name["checks"]] == ["report_only", "allow"]
    floor = client.post(place, json={"address": "169.254.169.254"}).json()
    assert (floor["verdict"], floor["reason"]) == ("deny", "floor_metadata")


def test_a_switch_is_simulated_in_both_directions(client: httpx.Client, host: httpx.Client) -> None:
    policy = make(client, enforcement="report_only", allowed_hostnames=["kept.example"])
    tell(client, host, policy["id"], 1, web("kept.example", verdict="allow"), web("lost.example"))
    said = client.post(f"{POLICIES}/{policy['id']}/simulate", json={"enforcement": "enforce"}).json()
    (closed,) = said["closed"]
    assert (closed["hostname"], closed["was"]["verdict"], closed["becomes"]["verdict"]) == (
        "lost.example",
        "report_only",
        "deny",
    )
    assert said["opened"] == []
    client.post(f"{POLICIES}/{policy['id']}", json={"enforcement": "enforce"})
    back = client.post(f"{POLICIES}/{policy['id']}/simulate", json={"enforcement": "report_only"}).json()
    assert [one["hostname"] for one in back["opened"]] == []
    assert back["undecided_count"] == 1


def test_a_suggestion_with_its_evidence(client: httpx.Client, host: httpx.Client) -> None:
    policy = make(client, enforcement="report_only", allowed_hostnames=["have.example", "unused.example"])
    devbox = tell(
        client,
        host,
        policy["id"],
        1,
        *(web(f"{label}.cdn.example", count=2) for label in "abcd"),
        web("have.example", verdict="allow"),
        {"name": "looked-up.example", "point": "dns"},
        {"address": "9.9.9.9", "port": 53, "protocol": "udp", "point": "kernel"},
        {"address": "9.9.9.9", "port": 53, "protocol": "udp", "point": "kernel", "bytes_out": 5, "bytes_in": 5},
        web("denied.example", verdict="deny"),
    )
    said = suggest(client, policy["id"])
    assert hosts(said) == {
        "*.cdn.example": False,
        "have.example": True,
        "looked-up.example": False,
        "denied.example": False,
    }
    (cidr,) = said["allowed_cidrs"]
    assert cidr["cidr"] == {"cidr": "9.9.9.9/32", "ports": [{"port": 53, "end_port": None, "protocol": "UDP"}]}
    # The record of the finished flow repeats the decision.
    assert cidr["evidence"]["count"] == 1
    first = said["allowed_hostnames"][0]
    assert first["hostname"] == "*.cdn.example"
    evidence = first["evidence"]
    assert (evidence["count"], evidence["reported_count"], evidence["name_count"]) == (8, 8, 4)
    assert evidence["devbox_ids"] == [devbox]
    assert said["unused"] == [{"field": "allowed_hostnames", "index": 1, "entry": "unused.example"}]
    assert said["judged_count"] == 12
    assert said["partial"] is False
    # The proposal is an update that leaves nothing to suggest.
    applied = client.post(f"{POLICIES}/{policy['id']}", json=said["proposed"])
    assert applied.status_code == 200, applied.text
    assert set(hosts(suggest(client, policy["id"])).values()) == {True}
    assert suggest(client, policy["id"])["proposed"] == said["proposed"]


def test_what_is_looked_at_can_be_chosen(client: httpx.Client, host: httpx.Client) -> None:
    policy = make(client, enforcement="report_only")
    tell(client, host, policy["id"], 1, web("old.example", time_ms=wall_ms() - 7_200_000))
    one = tell(client, host, policy["id"], 2, web("one.example"), web("no.example", verdict="deny"))
    tell(client, host, policy["id"], 3, web("two.example"))
    assert set(hosts(suggest(client, policy["id"]))) == {"one.example", "two.example", "no.example", "old.example"}
    assert set(hosts(suggest(client, policy["id"], devbox_ids=[one]))) == {"one.example", "no.example"}
    assert set(hosts(suggest(client, policy["id"], include_denied=False, hours=1))) == {"one.example", "two.example"}
    assert hosts(suggest(client, policy["id"], since_ms=wall_ms() + 60_000)) == {}


def test_wrong_questions_and_strangers(client: httpx.Client, stranger: httpx.Client) -> None:
    place = f"{POLICIES}/{make(client)['id']}/suggest"
    for body, field in (
        ({"hours": 0}, "hours"),
        ({"since_ms": -1}, "since_ms"),
        ({"devbox_ids": ["nobody"]}, "devbox_ids[0]"),
        ({"devbox_ids": ["x"] * 101}, "devbox_ids"),
    ):
        answer = client.post(place, json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, field), body
    assert stranger.post(place, json={}).status_code == 404


def test_what_is_cut_is_said(client: httpx.Client, host: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outgate.control.suggestions.GROUPS_MAX", 2)
    policy = make(client, enforcement="report_only")
    tell(client, host, policy["id"], 1, *(web(f"{label}.example", count=9 - n) for n, label in enumerate("abc")))
    said = suggest(client, policy["id"])
    assert (said["partial"], set(hosts(said))) == (True, {"a.example", "b.example"})
