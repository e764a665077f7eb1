"""Lists: order, pages, filters, and cursors that outlive what they name."""

from typing import Any

import httpx
import pytest

POLICIES = "/v1/network-policies"


def create(client: httpx.Client, *names: str) -> list[str]:
    return [client.post(POLICIES, json={"name": name}).json()["id"] for name in names]


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [entry["id"] for entry in answer.json()["network_policies"]]


def test_newest_first_page_by_page(client: httpx.Client) -> None:
    made = create(client, *(f"p{n}" for n in range(7)))
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 3}
    while True:
        page = client.get(POLICIES, params=params)
        seen += ids(page)
        assert page.json()["total_count"] == 7
        if not page.json()["has_more"]:
            break
        params["starting_after"] = seen[-1]
    assert seen == made[::-1]


def test_a_page_that_ends_exactly_has_no_more(client: httpx.Client) -> None:
    create(client, "a", "b")
    assert client.get(POLICIES, params={"limit": 2}).json()["has_more"] is False
    assert client.get(POLICIES, params={"limit": 1}).json()["has_more"] is True


def test_the_default_is_twenty(client: httpx.Client) -> None:
    create(client, *(f"p{n}" for n in range(21)))
    assert len(ids(client.get(POLICIES))) == 20


def test_a_deleted_cursor_still_works(client: httpx.Client) -> None:
    made = create(client, "a", "b", "c", "d")
    client.post(f"{POLICIES}/{made[2]}/delete")
    assert ids(client.get(POLICIES, params={"starting_after": made[2]})) == [made[1], made[0]]


def test_the_total_can_be_left_out(client: httpx.Client) -> None:
    create(client, "a")
    assert client.get(POLICIES, params={"include_total_count": "false"}).json()["total_count"] is None


def test_filters(client: httpx.Client) -> None:
    red, blue = create(client, "Deep Red", "deep blue")
    assert ids(client.get(POLICIES, params={"name": "deep"})) == [blue, red]
    assert ids(client.get(POLICIES, params={"name": "RED"})) == [red]
    assert ids(client.get(POLICIES, params={"id": blue})) == [blue]
    assert ids(client.get(POLICIES, params={"search": red})) == [red]
    assert ids(client.get(POLICIES, params={"search": "blue"})) == [blue]
    assert ids(client.get(POLICIES, params={"name": "%"})) == []
    filtered = client.get(POLICIES, params={"name": "red", "limit": 1}).json()
    assert (filtered["total_count"], filtered["has_more"]) == (1, False)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"limit": "0"}, "limit must be at least 1."),
        ({"limit": "5001"}, "limit must be at most 5000."),
        ({"limit": "-1"}, "limit must be at least 1."),
        ({"limit": "many"}, "limit must be a whole number."),
        ({"limit": "1.5"}, "limit must be a whole number."),
        ({"include_total_count": "maybe"}, "include_total_count must be true or false."),
        (
            {"starting_after": "nonsense"},
            "starting_after is the last id of the page before, as in npol_…; this is 'nonsense'.",
        ),
        ({"name": "a" * 257}, "name must have at most 256 characters."),
    ],
)
def test_parameters_that_are_refused(client: httpx.Client, params: dict[str, str], message: str) -> None:
    answer = client.get(POLICIES, params=params)
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert answer.json()["field"] == next(iter(params))


@pytest.mark.parametrize("name", ["\x00", "a\x00b"])
def test_nul_in_a_filter_is_refused(client: httpx.Client, name: str) -> None:
    assert client.get(POLICIES, params={"name": name}).status_code == 400


def test_devboxes_too(client: httpx.Client) -> None:
    made = [client.post("/v1/devboxes", json={"name": f"d{n}"}).json()["id"] for n in range(3)]
    client.post(f"/v1/devboxes/{made[0]}/shutdown")
    page = client.get("/v1/devboxes", params={"limit": 2}).json()
    assert [entry["id"] for entry in page["devboxes"]] == [made[2], made[1]]
    assert (page["has_more"], page["total_count"]) == (True, 3)
    rest = client.get("/v1/devboxes", params={"starting_after": made[1]}).json()
    assert [entry["id"] for entry in rest["devboxes"]] == [made[0]]
    ended = client.get("/v1/devboxes", params={"status": "shutdown"}).json()
    assert [entry["id"] for entry in ended["devboxes"]] == [made[0]]
    refused = client.get("/v1/devboxes", params={"status": "dead"})
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("status must be one of 'scheduled'")
