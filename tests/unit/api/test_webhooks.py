"""``/v1/webhooks``: made, changed, deleted, tried out, and told of what happens."""

import json
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from outgate.control import webhook_events
from outgate.control.configuration import ApiSettings
from outgate.model.desired import FlowBatch, FlowRecord, HostReport, HostWarning
from support.api_server import HOST_TOKEN, ApiServer
from support.fake_commands import AGENT_URL
from support.webhook_receiver import Receiver, Reply, run_receiver

HOOKS = "/v1/webhooks"
URL = "https://hooks.example.com/outgate"
LOOPBACK = ApiSettings(
    webhooks_max=3,
    webhook_networks=(ip_network("127.0.0.0/8"),),
    webhook_http_hosts=(IPv4Address("127.0.0.1"),),
)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Webhooks look for news at each turn, and not every five seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhook_events, "LOOK_EVERY_MS", 0)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Iterator[ApiServer]:
    """A server whose operator lets webhooks be on this host."""
    with ApiServer(tmp_path_factory.mktemp("hooks"), LOOPBACK) as running:
        yield running


@pytest.fixture
def lonely(tmp_path: Path, quick: None) -> Iterator[ApiServer]:
    """One whose host is silent, so that what is reported is what the test reports."""
    server = ApiServer(tmp_path, LOOPBACK)
    server.has_agent = False
    with server:
        yield server


def connect_host(server: ApiServer) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    headers = {"authorization": f"Bearer {HOST_TOKEN}"}
    return httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as running:
        yield running


@pytest.fixture
def host(server: ApiServer) -> Iterator[httpx.Client]:
    with connect_host(server) as client:
        yield client


def make(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(HOOKS, json={"url": URL, "events": ["flow.denied"]} | body)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def deliveries(client: httpx.Client, webhook_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{HOOKS}/{webhook_id}/deliveries").json()["deliveries"]
    return found


def tell_denial(host: httpx.Client, boot_id: str, devbox_id: str, *names: str, **other: Any) -> None:
    record = FlowRecord(
        1, devbox_id, "npol_1", 3, "deny", "name_not_allowed", "dns", sentence="Add it to allowed_hostnames."
    )
    records = tuple(msgspec.structs.replace(record, name=name, **other) for name in names)
    answer = host.post("/internal/v1/flows", content=msgspec.json.encode(FlowBatch(boot_id, 1, records)))
    assert answer.status_code == 200, answer.text


def test_the_whole_life_of_a_webhook(client: httpx.Client, policy_id: str) -> None:
    made = make(client, policy_ids=[policy_id], description="all of it")
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made.pop("old_secret_until_ms") is None
    assert made | {"id": "", "create_time_ms": 0, "update_time_ms": 0} == {
        "id": "",
        "url": URL,
        "description": "all of it",
        "events": ["flow.denied"],
        "policy_ids": [policy_id],
        "devbox_ids": [],
        "enabled": True,
        "status": "ok",
        "problem": None,
        "failing_since_ms": None,
        "create_time_ms": 0,
        "update_time_ms": 0,
    }
    place = f"{HOOKS}/{made['id']}"
    assert client.get(place).json() == made
    assert client.get(HOOKS).json() == {"webhooks": [made], "has_more": False, "total_count": 1}

    changed = client.post(place, json={"events": ["host.warning", "flow.denied"], "policy_ids": []}).json()
    assert (changed["events"], changed["policy_ids"]) == (["flow.denied", "host.warning"], [])
    assert changed["description"] == "all of it"
    off = client.post(place, json={"enabled": False}).json()
    assert (off["enabled"], off["status"]) == (False, "off")

    gone = client.post(f"{place}/delete").json()
    assert gone["id"] == made["id"]
    for method, path in (("GET", place), ("POST", place), ("POST", f"{place}/delete"), ("GET", f"{place}/deliveries")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found"), path
    assert client.get(HOOKS).json()["webhooks"] == []


def test_pages_follow_each_other(client: httpx.Client) -> None:
    ids = [make(client)["id"] for _ in range(3)]
    first = client.get(HOOKS, params={"limit": 2}).json()
    assert ([w["id"] for w in first["webhooks"]], first["has_more"]) == (ids[:0:-1], True)
    last = client.get(HOOKS, params={"limit": 2, "starting_after": ids[1]}).json()
    assert ([w["id"] for w in last["webhooks"]], last["has_more"]) == (ids[:1], False)


def test_an_account_has_so_many_and_no_more(client: httpx.Client) -> None:
    for _ in range(3):
        make(client)
    answer = client.post(HOOKS, json={"url": URL, "events": ["flow.denied"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_limit")


@pytest.mark.parametrize(
    ("body", "blamed", "word"),
    [
        ({"url": "http://hooks.example.com/"}, "url", "OUTGATE_WEBHOOK_HTTP_HOSTS"),
        ({"url": "ftp://hooks.example.com/"}, "url", "https://"),
        ({"url": "https://user:pass@hooks.example.com/"}, "url", "user information"),
        ({"url": "https://hooks.example.com/#part"}, "url", "fragment"),
        ({"url": "https://10.0.0.1/"}, "url", "OUTGATE_WEBHOOK_NETWORKS"),
        ({"url": "https://169.254.169.254/latest"}, "url", "metadata"),
        ({"url": "https://[fd00:ec2::254]/"}, "url", "metadata"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "url", "private"),
        ({"url": "https://2130706433/"}, "url", "neither a host name nor an address"),
        ({"url": "https://127.1/"}, "url", "neither a host name nor an address"),
        ({"url": "https://hooks.example.com:0/"}, "url", "port 0"),
        ({"url": "https://hooks.example.com:99999/"}, "url", "port"),
        ({"url": "https:///path"}, "url", "host"),
        ({"url": "https://hooks.example.com/ä"}, "url", "percent"),
        ({"url": "https://hooks.example.com/\r\nx: y"}, "url", "percent"),
        ({"url": f"https://hooks.example.com/{'x' * 2048}"}, "url", "2048"),
        ({"events": []}, "events", "flow.denied"),
        ({"events": ["flow.denied", "webhook.test"]}, "events[1]", "flow.denied"),
        ({"policy_ids": ["npol_000000000000000000000"]}, "policy_ids[0]", "no network policy"),
        ({"devbox_ids": ["dbx_1"]}, "devbox_ids[0]", "dbx_"),
        ({"devbox_ids": ["dbx_000000000000000000000"] * 101}, "devbox_ids", "100"),
        ({"description": "x" * 4097}, "description", "4096"),
    ],
)
def test_what_cannot_be_is_refused_by_field_and_with_a_remedy(
    client: httpx.Client, body: dict[str, Any], blamed: str, word: str
) -> None:
    webhook_id = make(client)["id"]
    for path, given in ((HOOKS, {"url": URL, "events": ["flow.denied"]} | body), (f"{HOOKS}/{webhook_id}", body)):
        answer = client.post(path, json=given)
        assert (answer.status_code, answer.json()["field"]) == (400, blamed), answer.text
        assert word in answer.json()["message"], answer.text


def test_another_account_sees_nothing_of_it(client: httpx.Client, stranger: httpx.Client) -> None:
    made = make(client)
    place = f"{HOOKS}/{made['id']}"
    for method, path in (
        ("GET", place),
        ("POST", place),
        ("POST", f"{place}/delete"),
        ("POST", f"{place}/test"),
        ("POST", f"{place}/secret"),
        ("GET", f"{place}/deliveries"),
    ):
        assert stranger.request(method, path).status_code == 404, path
    assert stranger.get(HOOKS).json()["webhooks"] == []
    assert client.get(place).status_code == 200


def test_a_policy_of_another_account_cannot_be_named(client: httpx.Client, stranger: httpx.Client) -> None:
    theirs = stranger.post("/v1/network-policies", json={"name": "theirs"}).json()["id"]
    answer = client.post(HOOKS, json={"url": URL, "events": ["flow.denied"], "policy_ids": [theirs]})
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_network_policy")


def test_a_key_needs_to_read_devboxes_to_have_their_denials_sent(server: ApiServer, client: httpx.Client) -> None:
    def restricted(**levels: str) -> str:
        scopes = [
            {"resource_type": f"RESOURCE_TYPE_{name.upper()}", "access_level": f"ACCESS_LEVEL_{level.upper()}"}
            for name, level in levels.items()
        ]
        made: str = client.post("/v1/restricted_keys", json={"name": "k", "scopes": scopes}).json()["key_secret"]
        return made

    webhook_id = make(client)["id"]
    body = {"url": URL, "events": ["flow.denied"]}
    with (
        server.client(restricted(account="write")) as blind,
        server.client(restricted(account="read", devboxes="read")) as reader,
    ):
        assert blind.post(HOOKS, json=body).status_code == 403
        assert reader.get(f"{HOOKS}/{webhook_id}").status_code == 200
        for path in (HOOKS, f"{HOOKS}/{webhook_id}", f"{HOOKS}/{webhook_id}/test", f"{HOOKS}/{webhook_id}/secret"):
            assert reader.post(path, json=body).status_code == 403, path
    with server.client(restricted(account="write", devboxes="read")) as writer:
        assert writer.post(HOOKS, json=body).status_code == 200


def test_calls_that_are_sent_twice_happen_once(client: httpx.Client) -> None:
    body = {"url": URL, "events": ["flow.denied"]}
    again = {"x-request-id": "make"}
    first, second = (client.post(HOOKS, json=body, headers=again).json() for _ in range(2))
    assert first == second
    place = f"{HOOKS}/{first['id']}"
    rotated, same = (client.post(f"{place}/secret", headers={"x-request-id": "turn"}).json() for _ in range(2))
    assert rotated["secret"] == same["secret"] != first["secret"]
    gone, still_gone = (client.post(f"{place}/delete", headers={"x-request-id": "end"}) for _ in range(2))
    assert gone.json() == still_gone.json()
    assert client.post(HOOKS, json=body, headers=again).json()["id"] != first["id"]


def test_no_answer_but_those_two_shows_the_secret(client: httpx.Client) -> None:
    made = make(client)
    place = f"{HOOKS}/{made['id']}"
    rotated = client.post(f"{place}/secret").json()
    secrets = (made["secret"], rotated["secret"])
    for answer in (client.get(place), client.get(HOOKS), client.post(place), client.get(f"{place}/deliveries")):
        assert not any(secret in answer.text for secret in secrets)
    assert "secret" not in client.post(f"{place}/delete").text


def test_a_test_arrives_signed_and_its_delivery_says_so(client: httpx.Client, receiver: Receiver) -> None:
    made = make(client, url=receiver.url)
    delivery = client.post(f"{HOOKS}/{made['id']}/test").json()
    assert (delivery["event"], delivery["state"]) == ("webhook.test", "pending")
    (came,) = receiver.wait()
    assert came.id == delivery["id"]
    said = came.verify(made["secret"])
    assert (said["type"], said["data"]["webhook_id"]) == ("webhook.test", made["id"])
    assert came.headers["content-type"] == "application/json"
    assert came.headers["host"] == f"127.0.0.1:{receiver.port}"
    ended = await_end(client, made["id"], delivery["id"])
    assert (ended["state"], ended["response_code"], ended["tries"], ended["error"]) == ("delivered", 204, 1, None)


def test_a_test_that_fails_says_why_and_is_not_repeated(client: httpx.Client, receiver: Receiver) -> None:
    receiver.replies = [Reply(500)]
    made = make(client, url=receiver.url)
    ended = await_end(client, made["id"], client.post(f"{HOOKS}/{made['id']}/test").json()["id"])
    assert (ended["state"], ended["response_code"], ended["error"]) == ("failed", 500, "answered 500")
    assert client.get(f"{HOOKS}/{made['id']}").json()["status"] == "ok"
    client.post(f"{HOOKS}/{made['id']}", json={"enabled": False})
    refused = client.post(f"{HOOKS}/{made['id']}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "webhook_off")


def await_end(client: httpx.Client, webhook_id: str, delivery_id: str) -> dict[str, Any]:
    """The delivery once it ended; the tests' bound on time ends the wait."""
    while True:
        (found,) = [one for one in deliveries(client, webhook_id) if one["id"] == delivery_id]
        if found["state"] != "pending":
            return found
        time.sleep(0.05)


def test_both_secrets_sign_while_they_overlap(client: httpx.Client, receiver: Receiver) -> None:
    made = make(client, url=receiver.url)
    rotated = client.post(f"{HOOKS}/{made['id']}/secret", json={"overlap_seconds": 3600}).json()
    assert rotated["old_secret_until_ms"] > rotated["create_time_ms"]
    client.post(f"{HOOKS}/{made['id']}/test")
    (came,) = receiver.wait()
    assert came.verify(made["secret"]) == came.verify(rotated["secret"])
    last = client.post(f"{HOOKS}/{made['id']}/secret", json={"overlap_seconds": 0}).json()
    client.post(f"{HOOKS}/{made['id']}/test")
    came = receiver.wait(2)[1]
    assert came.verify(last["secret"])
    assert len(came.headers["webhook-signature"].split()) == 1


def test_a_denial_arrives_as_a_record_of_the_flow_log(
    server: ApiServer, client: httpx.Client, stranger: httpx.Client, host: httpx.Client, receiver: Receiver
) -> None:
    made = make(client, url=receiver.url)
    make(stranger, url=receiver.url)
    devbox_id = client.post("/v1/devboxes", json={}).json()["id"]
    tell_denial(host, "one", devbox_id, "x.org", "x.org", "y.org", count=2)
    (came, *_) = receiver.wait()
    said = came.verify(made["secret"])
    assert said["type"] == "flow.denied"
    assert said["data"]["omitted_count"] == 0
    flows = said["data"]["network_flows"]
    assert [(flow["hostname"], flow["count"]) for flow in flows] == [("x.org", 4), ("y.org", 2)]
    shown = client.get("/v1/network-flows", params={"devbox_id": devbox_id, "limit": 1}).json()["network_flows"]
    assert flows[1] == shown[0]
    # Two accounts share the receiver, and one of them had no denial.
    client.post(f"{HOOKS}/{made['id']}/test")
    receiver.wait(2)
    assert {json.loads(one.body)["data"]["webhook_id"] for one in receiver.deliveries} == {made["id"]}


def told(receiver: Receiver, word: str) -> list[Any]:
    """Every entry that came under ``word``."""
    return [entry for one in receiver.deliveries for entry in json.loads(one.body)["data"].get(word, ())]


def test_a_warning_arrives_when_it_begins_and_when_it_ends(lonely: ApiServer, receiver: Receiver) -> None:
    def warn(reporting: httpx.Client, *warnings: HostWarning) -> None:
        report = HostReport(boot_id="boot", url=AGENT_URL, enforced=0, warnings=warnings)
        answer = reporting.post("/internal/v1/report", content=msgspec.json.encode(report))
        assert answer.status_code == 200, answer.text

    with connect_host(lonely) as reporting, lonely.client(lonely.new_account("told").api_key) as client:
        make(client, url=receiver.url, events=["host.warning"])
        warn(reporting, HostWarning("gate_down", "It is being started again."))
        receiver.wait_for(lambda _: [w["state"] for w in told(receiver, "warnings")] == ["began"])
        warn(reporting)
        receiver.wait_for(lambda _: [w["state"] for w in told(receiver, "warnings")] == ["began", "ended"])
    began, ended = told(receiver, "warnings")
    assert began == {"host": "local", "code": "gate_down", "text": "It is being started again.", "state": "began"}
    assert ended == began | {"text": "", "state": "ended"}


def test_changes_of_policies_arrive(client: httpx.Client, stranger: httpx.Client, receiver: Receiver) -> None:
    make(client, url=receiver.url, events=["policy.updated"])
    stranger.post("/v1/network-policies", json={"name": "another account's"})
    policy = client.post("/v1/network-policies", json={"name": "mine"}).json()
    receiver.wait_for(lambda _: bool(told(receiver, "network_policies")))
    client.post(f"/v1/network-policies/{policy['id']}/delete")
    receiver.wait_for(lambda _: told(receiver, "network_policies")[-1]["is_deleted"])
    seen = [(one["id"], one["name"], one["revision"], one["is_deleted"]) for one in told(receiver, "network_policies")]
    assert seen == [(policy["id"], "mine", 1, False), (policy["id"], "mine", 1, True)]


def test_one_that_is_made_anew_is_not_told_of_what_was(
    client: httpx.Client, host: httpx.Client, receiver: Receiver
) -> None:
    devbox_id = client.post("/v1/devboxes", json={}).json()["id"]
    tell_denial(host, "before", devbox_id, "before.example")
    made = make(client, url=receiver.url)
    client.post(f"{HOOKS}/{made['id']}", json={"enabled": False})
    tell_denial(host, "while off", devbox_id, "off.example")
    client.post(f"{HOOKS}/{made['id']}", json={"enabled": True})
    tell_denial(host, "after", devbox_id, "after.example")
    (came, *_) = receiver.wait()
    assert [flow["hostname"] for flow in came.verify(made["secret"])["data"]["network_flows"]] == ["after.example"]


def test_filters_let_through_only_their_own(client: httpx.Client, host: httpx.Client, receiver: Receiver) -> None:
    boxes = [client.post("/v1/devboxes", json={}).json()["id"] for _ in range(2)]
    made = make(client, url=receiver.url, devbox_ids=[boxes[1]])
    tell_denial(host, "first", boxes[0], "one.example")
    tell_denial(host, "second", boxes[1], "two.example")
    (came, *_) = receiver.wait()
    assert [flow["hostname"] for flow in came.verify(made["secret"])["data"]["network_flows"]] == ["two.example"]


def test_a_webhook_that_goes_in_the_middle_of_a_try_is_forgotten_and_others_go_on(
    client: httpx.Client, receiver: Receiver
) -> None:
    slow = Reply(500, release=threading.Event())
    receiver.replies = [slow]
    made = make(client, url=receiver.url)
    client.post(f"{HOOKS}/{made['id']}/test")
    receiver.wait()
    assert client.post(f"{HOOKS}/{made['id']}/delete").status_code == 200
    assert slow.release is not None
    slow.release.set()
    other = make(client, url=receiver.url)
    delivery = client.post(f"{HOOKS}/{other['id']}/test").json()
    assert await_end(client, other["id"], delivery["id"])["state"] == "delivered"
    assert len(receiver.deliveries) == 2
    assert client.get(HOOKS).json()["total_count"] == 1


def test_the_secret_is_not_in_the_store_as_it_is(server: ApiServer, client: httpx.Client) -> None:
    made = make(client)
    directory = Path(server.database_url.removeprefix("sqlite:///")).parent
    secret = made["secret"].removeprefix("whsec_")
    stored = b"".join(path.read_bytes() for path in directory.glob("outgate.db*"))
    assert made["id"].encode() in stored
    assert secret.encode() not in stored
