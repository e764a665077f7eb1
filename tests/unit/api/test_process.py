"""The api as a process: what survives kill -9, what is left of root, how it stops."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from outgate.api import serve
from outgate.control.services import Services
from support.api_server import FakeGateway, listen_tcp, make_services, open_database
from support.console import Visitor
from support.running_api import KEY, run
from support.webhook_receiver import run_receiver

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give it up")


@pytest.fixture
def public() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as bound:
        yield bound


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_nothing_that_was_answered_is_lost_by_kill_9(tmp_path: Path, public: socket.socket) -> None:
    confirmed: dict[str, int] = {}
    is_over = threading.Event()

    with run(tmp_path, public) as running:
        policies: list[str] = []
        with running.client() as client:
            bodies = [{"name": f"p{n}"} for n in range(4)]
            policies += [client.post("/v1/network-policies", json=body).json()["id"] for body in bodies]

        def write(policy_id: str) -> None:
            with running.client() as client, contextlib.suppress(httpx.HTTPError):
                for n in range(1, 100_000):
                    if is_over.is_set():
                        return
                    body = {"allowed_hostnames": [f"n{n}.example"]}
                    if client.post(f"/v1/network-policies/{policy_id}", json=body).status_code == 200:
                        confirmed[policy_id] = n

        writers = [threading.Thread(target=write, args=(policy_id,)) for policy_id in policies]
        for writer in writers:
            writer.start()
        until(lambda: len(confirmed) == len(policies) and min(confirmed.values()) >= 5)
        running.process.kill()
        is_over.set()
        running.process.wait(20)
        # Requests under way are cut; the socket stays open, so that one sent just then waits for the next api.
        with run(tmp_path, public, key="") as restarted, restarted.client() as client:
            for writer in writers:
                writer.join(30)
            for policy_id in policies:
                found = client.get(f"/v1/network-policies/{policy_id}").json()["egress"]["allowed_hostnames"]
                written = int(found[0][1:].removesuffix(".example"))
                # What was not confirmed may have been stored all the same; what was confirmed must have been.
                assert written >= confirmed[policy_id] > 0
                revisions = client.get(f"/v1/network-policies/{policy_id}/revisions?limit=5000").json()["revisions"]
                assert [r["revision"] for r in revisions] == list(range(len(revisions), 0, -1))
            restarted.end(signal.SIGTERM)


def test_the_first_start_makes_a_key_and_later_ones_do_not(tmp_path: Path, public: socket.socket) -> None:
    with run(tmp_path, public, key="") as running:
        key = running.said["api_key"]
        with running.client(key) as client:
            account = client.get("/v1/accounts/me").json()
            assert account["name"] == "default"
        assert running.end(signal.SIGTERM) == 0
    with run(tmp_path, public, key="") as running:
        assert running.said["api_key"] is None
        with running.client(key) as client:
            assert client.get("/v1/accounts/me").json() == account


def test_a_stop_answers_waiters_at_once(tmp_path: Path, public: socket.socket) -> None:
    with run(tmp_path, public) as running, running.client() as client:
        box = client.post("/v1/devboxes").json()
        host, port = public.getsockname()
        with contextlib.closing(http.client.HTTPConnection(host, port, timeout=20)) as waiting:
            body = json.dumps({"statuses": ["running"], "timeout_seconds": 30}).encode()
            waiting.putrequest("POST", f"/v1/devboxes/{box['id']}/wait_for_status")
            for name, value in (("authorization", f"Bearer {KEY}"), ("content-length", str(len(body)))):
                waiting.putheader(name, value)
            waiting.putheader("expect", "100-continue")
            waiting.endheaders()
            assert waiting.sock.recv(100).startswith(b"HTTP/1.1 100 "), "the api is at work on the request"
            waiting.send(body)
            assert running.end(signal.SIGTERM) == 0
            answer = waiting.getresponse()
            assert (answer.status, json.loads(answer.read())["code"]) == (503, "stopping")
            assert answer.getheader("x-should-retry") == "true"


@needs_root
def test_it_serves_without_any_privilege_and_without_reading_its_own_files(public: socket.socket) -> None:
    # Not pytest's directory: nobody may enter that.
    directory = Path(f"/tmp/outgate-test-{os.getpid()}-{time.monotonic_ns()}")
    directory.mkdir(mode=0o755)
    os.chown(directory, NOBODY, NOBODY)
    try:
        with run(directory, public, user=str(NOBODY), OUTGATE_TEST_WATCH_FILES="1") as running:
            status = dict(line.split(":\t", 1) for line in running.said["status"].splitlines() if ":\t" in line)
            assert status["Uid"].split() == [str(NOBODY)] * 4
            assert status["Gid"].split() == [str(NOBODY)] * 4
            assert status["Groups"].strip() == ""
            assert status["NoNewPrivs"].strip() == "1"
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[name], 16) == 0
            with running.client() as client:
                exercise(client)
                exercise_resources(client)
                exercise_webhooks(client)
                exercise_console(client)
            with httpx.Client(base_url=running.url, http1=False, http2=True, timeout=20) as client:
                assert client.get("/healthz").status_code == 200
            assert running.end(signal.SIGTERM) == 0
            opened = [line for line in running.stderr().splitlines() if line.startswith("opened ")]
            # FastAPI looks for the source text of each route, for its messages, and does without if it may not.
            assert [line for line in opened if not ("/outgate/api/" in line and line.endswith(".py"))] == []
        assert {path.owner() for path in directory.glob("outgate.db*")} == {"nobody"}
    finally:
        shutil.rmtree(directory)


def exercise_console(client: httpx.Client) -> None:
    """Each template once, and what words and suggestions need."""
    key = client.headers["authorization"].removeprefix("Bearer ")
    policy = client.post("/v1/network-policies", json={"name": "console", "allowed_hostnames": ["*.github.io"]}).json()[
        "id"
    ]
    place = f"/console/policies/{policy}"
    with httpx.Client(base_url=client.base_url, timeout=20) as browser:
        visitor = Visitor(browser)
        assert visitor.sign_in(key).status_code == 303
        for path in ("/console/policies", place, f"{place}/edit", f"{place}/suggestions", f"{place}/revisions/1"):
            visitor.see(path)
        for path in ("/console/devboxes", "/console/flows", "/console/picture", "/console/health"):
            visitor.see(path)
        assert "Line 1" in visitor.send(f"{place}/edit", name="x", allowed_hostnames="b\u00fccher.example").text
        assert "Before you save" in visitor.send(f"{place}/edit", name="x", allowed_hostnames="x.example").text
        assert visitor.get("/console/nothing").status_code == 404


def exercise_webhooks(client: httpx.Client) -> None:
    """A delivery that arrives, and one to where nobody speaks TLS."""
    with run_receiver() as receiver:
        for url in (receiver.url, f"https://127.0.0.1:{receiver.port}/"):
            made = client.post("/v1/webhooks", json={"url": url, "events": ["flow.denied"]}).json()
            place = f"/v1/webhooks/{made['id']}"
            delivery = client.post(f"{place}/test").json()
            while delivery["state"] == "pending":
                time.sleep(0.05)
                (delivery,) = client.get(f"{place}/deliveries").json()["deliveries"]
            assert (delivery["state"] == "delivered") == (url == receiver.url), delivery


def exercise(client: httpx.Client) -> None:
    """One of each kind of request, the refused ones too."""
    body = {"name": "p", "allowed_hostnames": ["a.example"], "allowed_cidrs": [{"cidr": "192.0.2.0/24"}]}
    policy = client.post("/v1/network-policies", json=body).json()
    path = f"/v1/network-policies/{policy['id']}"
    assert client.post(path, json={"allow_all": True}).status_code == 200
    assert client.post(path, json={"allowed_hostnames": ["bücher.example"]}).status_code == 400
    assert client.post(path, content=b"{").status_code == 400
    assert client.post("/v1/network-policies", json=body).status_code == 409
    assert client.post(f"{path}/explain", json={"hostname": "a.example", "address": "8.8.8.8"}).status_code == 200
    assert client.get("/v1/network-policies", params={"search": "p"}).status_code == 200
    assert client.get(f"{path}/revisions").status_code == 200
    box = client.post("/v1/devboxes", json={"launch_parameters": {"network_policy_id": policy["id"]}}).json()
    waited = {"statuses": ["running"], "timeout_seconds": 0.1}
    assert client.post(f"/v1/devboxes/{box['id']}/wait_for_status", json=waited).status_code == 408
    assert client.post(f"/v1/devboxes/{box['id']}/execute_async", json={"command": "x"}).status_code in (400, 503)
    assert client.post(f"/v1/devboxes/{box['id']}/shutdown").status_code == 200
    for route in ("/v1/accounts/me", "/healthz", "/readyz", "/openapi.json", "/nothing"):
        assert client.get(route).status_code in (200, 404, 503)
    assert httpx.get(str(client.base_url).rstrip("/") + "/v1/accounts/me").status_code == 401


def exercise_resources(client: httpx.Client) -> None:
    """A little of storage objects, secrets, configurations and keys."""
    made = client.post("/v1/objects", json={"name": "o", "content_type": "text"}).json()
    assert httpx.put(made["upload_url"], content=b"bytes").status_code == 200
    assert client.post(f"/v1/objects/{made['id']}/complete").status_code == 200
    link = client.get(f"/v1/objects/{made['id']}/download").json()["download_url"]
    for headers in ({}, {"range": "bytes=1-2"}):
        assert httpx.get(link, headers=headers).is_success
    assert client.post("/v1/secrets", json={"name": "S", "value": "v"}).status_code == 200
    body = {"name": "g", "endpoint": "https://a.example", "auth_mechanism": {"type": "bearer"}}
    assert client.post("/v1/gateway-configs", json=body).status_code == 200
    assert client.post("/v1/apikeys", json={}).status_code == 200


def test_half_an_api_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_services: Services) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(serve, "sweep_forever", fail)

    async def run_it() -> None:
        with open_database(f"sqlite:///{tmp_path / 'outgate.db'}") as database:
            services = make_services(tmp_path, database, FakeGateway())
            with listen_tcp() as bound:
                listeners = serve.Applications.make().listen(services, [bound], [])
                await serve.serve_services(services, listeners, asyncio.Event(), lambda: None)

    with pytest.raises(RuntimeError, match="ended by itself") as caught:
        asyncio.run(run_it())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
