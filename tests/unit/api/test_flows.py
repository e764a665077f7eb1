"""``/v1/network-flows``, and how records get there."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from outgate.model.desired import FlowBatch, FlowRecord
from support.api_server import HOST_TOKEN, ApiServer


@pytest.fixture
def host(server: ApiServer) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    headers = {"authorization": f"Bearer {HOST_TOKEN}"}
    with httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=10) as client:
        yield client


def make_record(devbox_id: str, time_ms: int, **other: Any) -> FlowRecord:
    record = FlowRecord(time_ms, devbox_id, "npol_1", 3, "deny", "no_rule", "dns", name="x.org")
    return msgspec.structs.replace(record, **other)


def tell(host: httpx.Client, boot_id: str, number: int, *records: FlowRecord) -> None:
    batch = FlowBatch(boot_id, number, records)
    answer = host.post("/internal/v1/flows", content=msgspec.json.encode(batch))
    assert answer.status_code == 200, answer.text


def make_devbox(client: httpx.Client) -> str:
    made: str = client.post("/v1/devboxes", json={}).json()["id"]
    return made


def list_flows(client: httpx.Client, **filters: str | int) -> list[dict[str, Any]]:
    answer = client.get("/v1/network-flows", params=filters)
    assert answer.status_code == 200, answer.text
    flows: list[dict[str, Any]] = answer.json()["network_flows"]
    return flows


def test_what_a_host_tells_is_read_by_its_account_alone(
    server: ApiServer, client: httpx.Client, host: httpx.Client
) -> None:
    devbox_id = make_devbox(client)
    finished = make_record(devbox_id, 2, verdict="allow", bytes_out=7, bytes_in=8, duration_ms=9, address="192.0.2.1")
    tell(host, "read", 1, make_record(devbox_id, 1, count=3, began_ms=0), finished)
    newest, oldest = list_flows(client, devbox_id=devbox_id)
    assert (newest["bytes_out"], newest["bytes_in"], newest["duration_ms"]) == (7, 8, 9)
    assert oldest | {"number": 0} == {
        "number": 0,
        "time_ms": 1,
        "began_ms": 0,
        "count": 3,
        "devbox_id": devbox_id,
        "policy_id": "npol_1",
        "revision": 3,
        "verdict": "deny",
        "reason": "no_rule",
        "enforcement_point": "dns",
        "rule": None,
        "sentence": "",
        "hostname": "x.org",
        "address": None,
        "port": None,
        "protocol": None,
        "bytes_out": None,
        "bytes_in": None,
        "duration_ms": None,
    }
    assert [flow["time_ms"] for flow in list_flows(client, devbox_id=devbox_id, verdict="deny", hostname="X.org.")] == [
        1
    ]
    assert list_flows(client, devbox_id=devbox_id, hostname="y.org") == []
    with server.client(server.new_account("strangers").api_key) as stranger:
        assert list_flows(stranger) == []
        assert list_flows(stranger, devbox_id=devbox_id) == []


def test_a_batch_sent_again_and_records_of_nobody_are_kept_out(client: httpx.Client, host: httpx.Client) -> None:
    devbox_id = make_devbox(client)
    for _ in range(2):
        tell(host, "again", 1, make_record(devbox_id, 1), make_record("dbx_nobody", 1))
    assert len(list_flows(client, devbox_id=devbox_id)) == 1
    assert list_flows(client, devbox_id="dbx_nobody") == []


def test_texts_from_a_devbox_are_cut_and_hold_no_nul(client: httpx.Client, host: httpx.Client) -> None:
    devbox_id = make_devbox(client)
    tell(host, "texts", 1, make_record(devbox_id, 1, name="a\0" * 5000, sentence="s" * 100_000, reason="r" * 100))
    (flow,) = list_flows(client, devbox_id=devbox_id)
    assert flow["hostname"] == "a\N{REPLACEMENT CHARACTER}" * 512
    assert (len(flow["sentence"]), len(flow["reason"])) == (2048, 64)


def test_pages_follow_each_other(client: httpx.Client, host: httpx.Client) -> None:
    devbox_id = make_devbox(client)
    tell(host, "pages", 1, *(make_record(devbox_id, n, port=n + 1) for n in range(5)))
    seen: list[int] = []
    params: dict[str, str | int] = {"devbox_id": devbox_id, "limit": 2}
    while True:
        page = client.get("/v1/network-flows", params=params).json()
        seen += [flow["time_ms"] for flow in page["network_flows"]]
        if not page["has_more"]:
            break
        params["starting_after"] = page["network_flows"][-1]["number"]
    assert seen == [4, 3, 2, 1, 0]


def test_the_stream_brings_what_comes_and_goes_on_where_a_client_was(client: httpx.Client, host: httpx.Client) -> None:
    devbox_id = make_devbox(client)
    tell(host, "stream", 1, make_record(devbox_id, 1))
    with client.stream("GET", "/v1/network-flows/stream", params={"devbox_id": devbox_id}) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith(":")
        tell(host, "stream", 2, make_record(devbox_id, 2))
        seen = next(json.loads(line[5:]) for line in lines if line.startswith("data:"))
    assert seen["time_ms"] == 2
    with client.stream(
        "GET", "/v1/network-flows/stream", params={"devbox_id": devbox_id, "starting_after": 0}
    ) as stream:
        again = (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:"))
        assert [next(again)["time_ms"], next(again)["time_ms"]] == [1, 2]


@pytest.mark.parametrize(
    "query",
    ["verdict=maybe", "limit=0", "since_ms=-1", "starting_after=x", "devbox_id=", "hostname=%00"],
)
def test_queries_that_make_no_sense(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/network-flows?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize("content", [b"", b"{}", b'{"boot_id":"b","number":"x"}', b"\xff"])
def test_batches_that_are_none(host: httpx.Client, content: bytes) -> None:
    answer = host.post("/internal/v1/flows", content=content)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")
