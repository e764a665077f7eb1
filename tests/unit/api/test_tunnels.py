"""Tunnels over HTTP, with an agent that only pretends and a front that only listens."""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from outgate.api.serve import Applications
from outgate.client.front_api import FrontApiClient
from outgate.client.transport import unix_url
from outgate.control.configuration import ApiSettings
from outgate.front.feed import follow
from outgate.front.routes import RouteTable
from outgate.model.flow import HostContext
from outgate.model.names import DomainName
from outgate.model.tunnels import ActivityNote, TunnelRoute, WakeState, is_key_of_account
from outgate.store.hosts import find_host_by_name
from support.api_server import ApiServer, listen_unix

DEVBOXES = "/v1/devboxes"
SETTINGS = ApiSettings(enforce_wait_s_max=30.0, context=HostContext(tunnel_domain=DomainName("tunnel.example.com")))


class Front:
    """A table of tunnels that follows the api over its real interface."""

    def __init__(self, server: ApiServer, path: Path) -> None:
        self.table = RouteTable()
        self._server, self._path = server, path
        self.listening = listen_unix(path)

    def work(self) -> Sequence[Coroutine[Any, Any, None]]:
        services = self._server.services
        host = self._server.database.read_now(lambda tx: find_host_by_name(tx, "local"))
        assert host is not None
        listener = Applications.make().listen_for_front(services, self.listening, host.id)
        return (listener.serve(), self._follow())

    async def _follow(self) -> None:
        async with self.api() as api:
            await follow(api, self.table)

    def api(self) -> FrontApiClient:
        return FrontApiClient(unix_url(self._path))


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiServer, Front]]:
    directory = tmp_path_factory.mktemp("tunnels")
    server = ApiServer(directory, SETTINGS)
    front = Front(server, directory / "front-api.sock")
    server.besides = front.work
    with front.listening, server:
        deadline_s = time.monotonic() + 30
        while not front.table.seq:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        yield server, front


@pytest.fixture
def front(serving: tuple[ApiServer, Front]) -> Front:
    return serving[1]


@pytest.fixture
def client(serving: tuple[ApiServer, Front], request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    server, _ = serving
    with server.client(server.new_account(request.node.name[:60]).api_key) as client:
        yield client


def create(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{DEVBOXES}/create_and_await_running", json=body)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    assert view["status"] == "running"
    return view


def await_status(client: httpx.Client, devbox_id: str, status: str) -> dict[str, Any]:
    answer = client.post(f"{DEVBOXES}/{devbox_id}/wait_for_status", json={"statuses": [status]})
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def test_a_tunnel_is_served_when_its_answer_comes_and_not_any_more_when_it_is_removed(
    client: httpx.Client, front: Front
) -> None:
    devbox = create(client)
    assert devbox["tunnel"] is None
    answer = client.post(f"{DEVBOXES}/{devbox['id']}/enable_tunnel")
    assert (answer.status_code, answer.headers["x-outgate-enforced"]) == (200, "1/1")
    tunnel = answer.json()
    assert tunnel == {
        "tunnel_key": tunnel["tunnel_key"],
        "auth_mode": "open",
        "create_time_ms": tunnel["create_time_ms"],
        "http_keep_alive": True,
        "wake_on_http": False,
        "auth_token": None,
    }
    account = client.get("/v1/accounts/me").json()["id"]
    assert is_key_of_account(tunnel["tunnel_key"], account)
    assert front.table.find(tunnel["tunnel_key"]) == TunnelRoute(tunnel["tunnel_key"], devbox["id"], account)
    assert client.get(f"{DEVBOXES}/{devbox['id']}").json()["tunnel"] == tunnel
    assert client.get(DEVBOXES).json()["devboxes"][0]["tunnel"] == tunnel

    removed = client.post(f"{DEVBOXES}/{devbox['id']}/remove_tunnel", headers={"content-type": "application/json"})
    assert (removed.status_code, removed.json(), removed.headers["x-outgate-enforced"]) == (200, {}, "1/1")
    assert front.table.find(tunnel["tunnel_key"]) is None
    assert client.get(f"{DEVBOXES}/{devbox['id']}").json()["tunnel"] is None
    assert client.post(f"{DEVBOXES}/{devbox['id']}/remove_tunnel").status_code == 200, "there was none any more"
    again = client.post(f"{DEVBOXES}/{devbox['id']}/enable_tunnel", json={}).json()
    assert again["tunnel_key"] != tunnel["tunnel_key"]


def test_a_tunnel_at_create_with_a_token(client: httpx.Client, front: Front) -> None:
    asked = {"auth_mode": "authenticated", "http_keep_alive": False, "wake_on_http": True}
    tunnel = create(client, tunnel=asked)["tunnel"]
    assert {name: tunnel[name] for name in asked} == asked
    assert len(tunnel["auth_token"]) >= 32
    deadline_s = time.monotonic() + 30
    while (route := front.table.find(tunnel["tunnel_key"])) is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert route.token_digest is not None
    assert tunnel["auth_token"] not in repr(route)
    assert not route.http_keep_alive


def test_the_end_of_a_devbox_ends_its_tunnel(client: httpx.Client, front: Front) -> None:
    devbox = create(client)
    key = client.post(f"{DEVBOXES}/{devbox['id']}/enable_tunnel").json()["tunnel_key"]
    client.post(f"{DEVBOXES}/{devbox['id']}/shutdown")
    deadline_s = time.monotonic() + 30
    while front.table.find(key) is not None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_call_that_is_sent_twice_opens_one_tunnel(client: httpx.Client) -> None:
    path = f"{DEVBOXES}/{create(client)['id']}/enable_tunnel"
    headers = {"x-request-id": "once"}
    first = client.post(path, headers=headers)
    assert client.post(path, headers=headers).json() == first.json()
    second = client.post(path)
    assert (second.status_code, second.json()["code"]) == (400, "tunnel_exists")
    other = client.post(path, headers=headers, json={"auth_mode": "authenticated"})
    assert (other.status_code, other.json()["code"]) == (409, "request_id_reused")


def test_what_cannot_be(client: httpx.Client, serving: tuple[ApiServer, Front]) -> None:
    devbox = create(client)
    path = f"{DEVBOXES}/{devbox['id']}"
    for body, field in (
        ({"auth_mode": "closed"}, "auth_mode"),
        ({"http_keep_alive": "yes"}, "http_keep_alive"),
        ({"wake_on_http": 1}, "wake_on_http"),
    ):
        answer = client.post(f"{path}/enable_tunnel", json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)
        at_create = client.post(DEVBOXES, json={"tunnel": body})
        assert (at_create.status_code, at_create.json()["field"]) == (400, f"tunnel.{field}")
    for action in ("enable_tunnel", "remove_tunnel"):
        assert client.post(f"{DEVBOXES}/dbx_000000000000000000000/{action}").status_code == 404
        assert client.post(f"{DEVBOXES}/nonsense/{action}").status_code == 404
        server = serving[0]
        with server.client(server.new_account(f"stranger {action}").api_key) as stranger:
            assert stranger.post(f"{path}/{action}").status_code == 404
    client.post(f"{path}/suspend")
    await_status(client, devbox["id"], "suspended")
    asleep = client.post(f"{path}/enable_tunnel")
    assert (asleep.status_code, asleep.json()["code"]) == (400, "devbox_not_running")


def test_a_front_that_is_missing_is_a_warning(tmp_path: Path, client: httpx.Client) -> None:
    assert client.get("/readyz").json()["warnings"] == []
    settings = replace(SETTINGS, enforce_wait_s_max=0.5)
    with ApiServer(tmp_path, settings) as server, server.client(server.new_account("a").api_key) as alone:
        devbox = create(alone)
        answer = alone.post(f"{DEVBOXES}/{devbox['id']}/enable_tunnel")
        assert (answer.status_code, answer.headers["x-outgate-enforced"]) == (200, "0/1")
        (warning,) = alone.get("/readyz").json()["warnings"]
        assert "tunnel_front_down" in str(warning)


def test_without_a_domain_the_setting_is_named(tmp_path: Path) -> None:
    with ApiServer(tmp_path) as server, server.client(server.new_account("a").api_key) as client:
        devbox = create(client)
        for answer in (
            client.post(f"{DEVBOXES}/{devbox['id']}/enable_tunnel"),
            client.post(DEVBOXES, json={"tunnel": {"auth_mode": "open"}}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (400, "tunnels_off")
            assert "OUTGATE_TUNNEL_DOMAIN" in answer.json()["message"]


async def _wake(front: Front, key: str) -> WakeState:
    async with front.api() as api:
        return (await api.wake(key)).state


def test_requests_wake_a_devbox_if_they_may(client: httpx.Client, front: Front) -> None:
    cases = (
        ({"wake_on_http": True}, None, WakeState.STARTING),
        ({"wake_on_http": False}, None, WakeState.ASLEEP),
        ({"wake_on_http": False}, {"resume_triggers": {"http": True}}, WakeState.STARTING),
        ({"wake_on_http": True}, {"resume_triggers": {"http": False}}, WakeState.ASLEEP),
    )
    for tunnel, lifecycle, expected in cases:
        launch = {} if lifecycle is None else {"lifecycle": lifecycle}
        devbox = create(client, tunnel=tunnel, launch_parameters=launch)
        client.post(f"{DEVBOXES}/{devbox['id']}/suspend")
        await_status(client, devbox["id"], "suspended")
        assert asyncio.run(_wake(front, devbox["tunnel"]["tunnel_key"])) is expected
        if expected is WakeState.STARTING:
            await_status(client, devbox["id"], "running")
        else:
            assert client.get(f"{DEVBOXES}/{devbox['id']}").json()["status"] == "suspended"
        client.post(f"{DEVBOXES}/{devbox['id']}/shutdown")
        assert asyncio.run(_wake(front, devbox["tunnel"]["tunnel_key"])) is WakeState.GONE


def test_use_keeps_an_idle_devbox_where_it_is_to_count(
    client: httpx.Client, front: Front, serving: tuple[ApiServer, Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = {"after_idle": {"idle_time_seconds": 3600, "on_idle": "shutdown"}}
    kept = create(client, tunnel={}, launch_parameters=idle)
    unkept = create(client, tunnel={"http_keep_alive": False}, launch_parameters=idle)

    async def note() -> None:
        async with front.api() as api:
            keys = (kept["tunnel"]["tunnel_key"], unkept["tunnel"]["tunnel_key"], "a" * 24)
            await api.note_activity(ActivityNote(keys))

    noted: list[str] = []

    def take_note(devbox_id: str, now_ms: int) -> None:
        noted.append(devbox_id)

    monkeypatch.setattr(serving[0].services.activity, "note", take_note)
    asyncio.run(note())
    assert noted == [kept["id"]]
