"""Whatever is sent: a clear 4xx as JSON, and no trace in the store."""

import json
import socket
from typing import Any

import httpx
import pytest

from support.api_server import ApiServer

POLICIES = "/v1/network-policies"
MIB = 1024 * 1024


def check_refusal(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert {"message", "code", "request_id"} <= set(body)
    assert body["request_id"] == answer.headers["x-outgate-request-id"]
    return body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "The body is not valid JSON"),
        (b"\xff\xfe", "The body is not valid JSON"),
        (b'{"name": "a\xff"}', "The body is not valid JSON"),
        (b'{"name": "\\ud800"}', "The body is not valid JSON"),
        (b"[" * 100_000, "The body is not valid JSON: recursion limit"),
        (b'{"name":' * 5_000 + b"1" + b"}" * 5_000, "The body is not valid JSON: recursion limit"),
        (b'{"name": "a"} trailing', "The body is not valid JSON"),
        (b'{"x": 1' + b"0" * 10_000 + b"}", "The body is not valid JSON"),
        (b"null", "The body must be a JSON object."),
        (b"[]", "The body must be a JSON object."),
        (b'"text"', "The body must be a JSON object."),
        (b"", "name is required."),
        (b"   ", "name is required."),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_bodies_that_are_no_json_object(client: httpx.Client, content: bytes, message: str) -> None:
    answer = client.post(POLICIES, content=content, headers={"content-type": "application/json"})
    assert check_refusal(answer)["message"].startswith(message)
    assert client.get(POLICIES).json()["total_count"] == 0


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({}, "name", "name is required."),
        ({"name": None}, "name", "name must be a string."),
        ({"name": 1}, "name", "name must be a string."),
        ({"name": ""}, "name", "name: A name must not be empty."),
        ({"name": "a" * 257}, "name", "name: This is 257 characters long; use at most 256."),
        ({"name": "a\u0000"}, "name", "name: This holds a control character; write one line of plain text."),
        ({"name": "p", "description": 1}, "description", "description must be a string."),
        ({"name": "p", "allow_all": "true"}, "allow_all", "allow_all must be true or false."),
        ({"name": "p", "allow_all": 1}, "allow_all", "allow_all must be true or false."),
        ({"name": "p", "allowed_hostnames": "a.example"}, "allowed_hostnames", "allowed_hostnames must be a list."),
        ({"name": "p", "allowed_hostnames": [1]}, "allowed_hostnames[0]", "allowed_hostnames[0] must be a string."),
        ({"name": "p", "allowed_hostnames": [None]}, "allowed_hostnames[0]", "allowed_hostnames[0] must be a string."),
        ({"name": "p", "allowed_cidrs": ["10.0.0.0/8"]}, "allowed_cidrs[0]", "allowed_cidrs[0] must be an object."),
        ({"name": "p", "allowed_cidrs": [{}]}, "allowed_cidrs[0].cidr", "allowed_cidrs[0].cidr is required."),
        (
            {"name": "p", "allowed_cidrs": [{"cidr": "10.0.0.0/8", "ports": [{"port": "80"}]}]},
            "allowed_cidrs[0].ports[0].port",
            "allowed_cidrs[0].ports[0].port must be a whole number.",
        ),
        (
            {"name": "p", "allowed_cidrs": [{"cidr": "10.0.0.0/8", "ports": [{"port": 80, "protocol": "tcp"}]}]},
            "allowed_cidrs[0].ports[0].protocol",
            "allowed_cidrs[0].ports[0].protocol must be one of 'TCP' or 'UDP'.",
        ),
        (
            {"name": "p", "allowed_cidrs": [{"cidr": "10.0.0.0/8", "port": 80}]},
            "allowed_cidrs[0].port",
            "allowed_cidrs[0].port is not a field of a rule; leaving it out silently could open more than was meant.",
        ),
        (
            {"name": "p", "allowed_hosts": ["a.example"]},
            "allowed_hosts",
            "allowed_hosts is not a field of a network policy; did you mean allowed_hostnames?",
        ),
        (
            {"name": "p", "allowAll": True},
            "allowAll",
            "allowAll is not a field of a network policy; did you mean allow_all?",
        ),
        (
            {"name": "p", "allow_ipv6": None},
            "allow_ipv6",
            "allow_ipv6 is not a field of a network policy; did you mean allow_all?",
        ),
        (
            {"name": "p", "allowed_hostnames": ["ok.example", "https://x.example"]},
            "allowed_hostnames[1]",
            "allowed_hostnames[1]: 'https://x.example' is a URL; write only its host name, without scheme and path.",
        ),
        (
            {"name": "p", "allowed_cidrs": [{"cidr": "10.0.0.1/8"}]},
            "allowed_cidrs[0].cidr",
            "allowed_cidrs[0].cidr: '10.0.0.1/8' has host bits set; write 10.0.0.0/8 instead.",
        ),
        (
            {"name": "p", "allowed_hostnames": ["a.example"] * 1001},
            "allowed_hostnames",
            "allowed_hostnames has 1,001 entries; it takes at most 1,000.",
        ),
    ],
)
def test_values_that_are_refused_on_create_and_update(
    client: httpx.Client, policy_id: str, body: dict[str, Any], field: str, message: str
) -> None:
    refused = check_refusal(client.post(POLICIES, json=body))
    assert (refused["field"], refused["message"]) == (field, message)
    if "name" in body and body["name"] == "p":
        # Where only other fields are at fault, an update refuses in the same words, and changes nothing.
        refused = check_refusal(client.post(f"{POLICIES}/{policy_id}", json=body))
        assert (refused["field"], refused["message"]) == (field, message)
    assert client.get(POLICIES).json()["total_count"] == 1
    assert len(client.get(f"{POLICIES}/{policy_id}/revisions").json()["revisions"]) == 1


def test_other_unknown_fields_are_ignored(client: httpx.Client) -> None:
    body = {"name": "p", "color": "red", "deep": {"allow_all": True}, "nan": 1, "egress": {"allow_all": True}}
    answer = client.post(POLICIES, json=body)
    assert answer.status_code == 200
    assert answer.json()["egress"]["allow_all"] is False


def test_whole_numbers_may_be_written_with_a_fraction_of_zero(client: httpx.Client) -> None:
    content = b'{"name":"p","allowed_cidrs":[{"cidr":"10.0.0.0/8","ports":[{"port":443.0}]}]}'
    assert client.post(POLICIES, content=content).status_code == 200


def test_the_largest_body_and_one_byte_more(client: httpx.Client) -> None:
    frame = len(json.dumps({"name": "p", "padding": ""}))
    fits = json.dumps({"name": "p", "padding": "x" * (MIB - frame)})
    assert len(fits) == MIB
    assert client.post(POLICIES, content=fits).status_code == 200
    refused = check_refusal(client.post(POLICIES, content=fits + " "), 413)
    assert refused["message"] == "The body is longer than 1,048,576 bytes, the most that is read."


def test_a_body_without_a_length_is_bounded_too(client: httpx.Client) -> None:
    def chunks() -> Any:
        for _ in range(40):
            yield b" " * 65_536

    check_refusal(client.post(POLICIES, content=chunks()), 413)
    # The connection, or a new one, is good for the next request.
    assert client.get(POLICIES).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "no_such_route"),
        ("GET", "/v1/network-policies/", 404, "no_such_route"),
        ("GET", "/v1/nothing", 404, "no_such_route"),
        ("POST", "/v1/devboxes/dbx_x/hibernate", 404, "no_such_route"),
        ("GET", "/internal/v1/desired-state", 404, "no_such_route"),
        ("POST", "/internal/v1/report", 404, "no_such_route"),
        ("DELETE", "/v1/network-policies/npol_x", 405, "method_not_allowed"),
        ("PUT", "/v1/network-policies/npol_x", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "no_such_route"),
    ],
)
def test_routes_that_are_not_there(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    refused = check_refusal(client.request(method, path), status)
    assert refused["code"] == code


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Basic abc", "Bearer wrong", "Bearer " + "x" * 5000, "Bearer ogk_ä"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", POLICIES), ("POST", POLICIES), ("POST", "/v1/devboxes"), ("GET", "/v1/accounts/me")],
)
def test_without_a_valid_key_the_answer_is_401(server: ApiServer, header: str | None, method: str, path: str) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    # The body is no JSON: who has no key is not told what is wrong with it.
    answer = httpx.request(method, server.base_url + path, headers=headers, content=b"{")
    refused = check_refusal(answer, 401)
    assert refused["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET /v1/network-policies HTTP/9.9\r\n\r\n",
        b"POST /v1/network-policies HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    ],
)
def test_bytes_that_are_no_http_do_not_harm_the_server(server: ApiServer, client: httpx.Client, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)
    assert client.get(POLICIES).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_a_body_does_not_harm_the_server(
    server: ApiServer, client: httpx.Client
) -> None:
    key = client.headers["authorization"]
    head = f"POST {POLICIES} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode() + b'{"name": "half')
    assert client.get(POLICIES).json()["total_count"] == 0
