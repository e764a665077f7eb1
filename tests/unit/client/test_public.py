"""The command line's client of the public API."""

import json

import httpx
import pytest

from outgate.client.public import OutgateClient
from outgate.client.transport import PeerRefusedError, PeerUnreachableError


def make_client(*answers: httpx.Response | Exception) -> tuple[OutgateClient, list[httpx.Request]]:
    """A client whose server gives these answers, and what it was asked."""
    asked: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    return OutgateClient("http://server", "key", transport=httpx.MockTransport(answer)), asked


def test_the_key_is_shown_and_the_body_is_json() -> None:
    client, asked = make_client(httpx.Response(200, json={"id": "npol_1"}))
    assert client.create_policy({"name": "ci"}) == {"id": "npol_1"}
    assert asked[0].headers["authorization"] == "Bearer key"
    assert (asked[0].method, asked[0].url.path) == ("POST", "/v1/network-policies")
    assert json.loads(asked[0].content) == {"name": "ci"}


def test_pages_are_followed_to_the_end() -> None:
    pages = [
        httpx.Response(200, json={"network_policies": [{"id": "c"}, {"id": "b"}], "has_more": True}),
        httpx.Response(200, json={"network_policies": [{"id": "a"}], "has_more": False}),
    ]
    client, asked = make_client(*pages)
    assert [policy["id"] for policy in client.list_policies(name="ci")] == ["c", "b", "a"]
    assert [request.url.params.get("starting_after") for request in asked] == [None, "b"]
    assert all(request.url.params["name"] == "ci" for request in asked)


def test_a_refusal_carries_the_servers_message_code_and_status() -> None:
    client, _ = make_client(
        httpx.Response(400, json={"message": "write 192.0.2.0/24 instead.", "code": "invalid_cidr"})
    )
    with pytest.raises(PeerRefusedError) as refused:
        client.update_policy("npol_1", {})
    assert (refused.value.message, refused.value.code, refused.value.status) == (
        "write 192.0.2.0/24 instead.",
        "invalid_cidr",
        400,
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff"])
def test_an_error_without_sense_still_has_its_status(body: bytes) -> None:
    client, _ = make_client(httpx.Response(502, content=body))
    with pytest.raises(PeerRefusedError, match="HTTP 502"):
        client.get_account()


def test_nobody_there() -> None:
    client, _ = make_client(httpx.ConnectError("refused"))
    with pytest.raises(PeerUnreachableError, match="http://server does not answer"):
        client.get_devbox("dbx_1")


def test_a_wait_that_saw_nothing_is_none_and_an_execution_is_waited_for() -> None:
    client, _ = make_client(httpx.Response(408, json={"message": "nothing"}))
    assert client.wait_for_devbox("dbx_1", "running") is None
    client, asked = make_client(
        httpx.Response(200, json={"status": "running", "execution_id": "e"}),
        httpx.Response(408, json={"message": "nothing"}),
        httpx.Response(200, json={"status": "completed", "execution_id": "e", "exit_status": 3}),
    )
    assert client.execute("dbx_1", "exit 3")["exit_status"] == 3
    assert [request.url.path.rpartition("/")[2] for request in asked] == [
        "execute",
        "wait_for_status",
        "wait_for_status",
    ]


def test_readiness_is_read_whatever_its_status() -> None:
    client, _ = make_client(httpx.Response(503, json={"status": "not_enforcing"}))
    assert client.get_readiness() == {"status": "not_enforcing"}
