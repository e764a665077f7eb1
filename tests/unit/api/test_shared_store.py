"""Two api processes on one PostgreSQL: what one answered the other knows, and hosts may report to either."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import select

from outgate.clock import wall_ms
from outgate.control.accounts import list_keys, revoke_key
from outgate.control.configuration import ApiSettings
from outgate.store.tables import devboxes
from support.api_server import ApiServer
from support.postgres import create_database, find_postgres, run_postgres

POLICIES = "/v1/network-policies"
SETTINGS = ApiSettings(enforce_wait_s_max=30.0)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiServer, ApiServer]]:
    """The second one serves the host; the first hears of it through the database alone."""
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed")
    with run_postgres(binaries) as url:
        shared = create_database(binaries, url, "shared")
        first = ApiServer(tmp_path_factory.mktemp("first"), SETTINGS, url=shared)
        second = ApiServer(tmp_path_factory.mktemp("second"), SETTINGS, url=shared)
        first.has_agent = False
        with first, second:
            yield first, second


@pytest.fixture
def clients(servers: tuple[ApiServer, ApiServer], request: pytest.FixtureRequest) -> Iterator[list[httpx.Client]]:
    key = servers[0].new_account(request.node.name).api_key
    with servers[0].client(key) as first, servers[1].client(key) as second:
        yield [first, second]


def test_a_devbox_asked_for_here_runs_there_and_updates_wait_for_its_host(
    servers: tuple[ApiServer, ApiServer], clients: list[httpx.Client]
) -> None:
    first, second = clients
    policy = first.post(POLICIES, json={"name": "p"}).json()
    launch = {"network_policy_id": policy["id"]}
    box = first.post("/v1/devboxes/create_and_await_running", json={"launch_parameters": launch}).json()
    assert box["status"] == "running"
    assert second.get(f"/v1/devboxes/{box['id']}").json() == box
    for n, client in enumerate([first, second, first]):
        answer = client.post(f"{POLICIES}/{policy['id']}", json={"allowed_hostnames": [f"{n}.example"]})
        assert answer.headers["x-outgate-enforced"] == "1/1"
        assert servers[1].agent.policies[policy["id"]].allowed_hostnames == (f"{n}.example",)
    assert first.post(f"/v1/devboxes/{box['id']}/shutdown").status_code == 200
    waited = second.post(f"/v1/devboxes/{box['id']}/wait_for_status", json={"statuses": ["shutdown"]})
    assert waited.status_code == 200
    assert first.get("/readyz").status_code == 200


def test_writers_through_both_lose_nothing(clients: list[httpx.Client]) -> None:
    policy = clients[0].post(POLICIES, json={"name": "p"}).json()
    path = f"{POLICIES}/{policy['id']}"
    fields = ("allow_devbox_to_devbox", "allow_agent_gateway", "allow_mcp_gateway", "allow_runloop_mirrors")

    def write(field: str) -> None:
        for n in range(11):
            client = clients[n % 2]
            answer = client.post(path, json={field: n % 2 == 0})
            assert answer.status_code == 200, answer.text
            assert answer.json()["egress"][field] is (n % 2 == 0)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, fields))
    egress = clients[0].get(path).json()["egress"]
    assert [egress[field] for field in fields] == [True] * 4
    revisions = clients[1].get(f"{path}/revisions", params={"limit": 100}).json()["revisions"]
    assert [r["revision"] for r in revisions] == list(range(45, 0, -1))


def test_one_call_sent_to_both_at_once_is_one_call(clients: list[httpx.Client]) -> None:
    def send(n: int) -> httpx.Response:
        return clients[n % 2].post(POLICIES, json={"name": "p"}, headers={"x-request-id": "k"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_of_many_creators_of_one_name_one_wins(clients: list[httpx.Client]) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: clients[n % 2].post(POLICIES, json={"name": "same"}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


@pytest.mark.parametrize("text", ["\ud7ff", "💾", "a\u0001b"])
def test_texts_that_sqlite_takes_postgresql_takes_too(clients: list[httpx.Client], text: str) -> None:
    answer = clients[0].post(POLICIES, json={"name": "p", "description": text})
    assert (answer.status_code, answer.json()["description"]) == (200, text)
    assert clients[1].post(POLICIES, json={"name": "q", "description": "\x00"}).status_code == 400
    assert clients[1].get(POLICIES, params={"search": text}).status_code == 200
    assert clients[1].get(f"{POLICIES}/npol_" + "%00" * 21).status_code == 404


def test_keys_revoked_by_one_are_refused_by_the_other(
    servers: tuple[ApiServer, ApiServer], clients: list[httpx.Client]
) -> None:

    me = clients[1].get("/v1/accounts/me").json()
    assert clients[0].get(POLICIES).status_code == 200
    key = list_keys(servers[1].database, me["id"])[0]
    revoke_key(servers[1].database, key.id, wall_ms())
    assert clients[0].get(POLICIES).status_code == 401
    assert clients[1].post(POLICIES, json={"name": "p"}).status_code == 401


def read_end_ms(server: ApiServer, devbox_id: str) -> int:
    wanted = select(devboxes.c.expire_time_ms).where(devboxes.c.id == devbox_id)
    end_ms: int = server.database.read_now(lambda tx: tx.execute(wanted).scalar_one())
    return end_ms


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_an_idle_devbox_is_suspended_once_whoever_looks_and_activity_elsewhere_counts(
    servers: tuple[ApiServer, ApiServer], clients: list[httpx.Client]
) -> None:
    first, second = clients
    idle_s = 600
    launch = {"after_idle": {"idle_time_seconds": idle_s, "on_idle": "suspend"}}
    box = first.post("/v1/devboxes/create_and_await_running", json={"launch_parameters": launch}).json()
    path = f"/v1/devboxes/{box['id']}"
    active_ms = wall_ms() + 5_000
    servers[1].call(lambda: servers[1].services.activity.note(box["id"], active_ms))
    until(lambda: read_end_ms(servers[0], box["id"]) == active_ms + idle_s * 1000)
    assert first.get(path).json()["status"] == "running"
    due = devboxes.update().where(devboxes.c.id == box["id"]).values(expire_time_ms=wall_ms() - 5_000)
    servers[0].database.write_now(lambda tx: tx.execute(due))
    waited = second.post(f"{path}/wait_for_status", json={"statuses": ["suspended"], "timeout_seconds": 15})
    assert waited.status_code == 200, waited.text
    history = [entry["status"] for entry in first.get(path).json()["state_transitions"]]
    assert history == ["provisioning", "running", "suspending", "suspended"]
    assert first.post(f"{path}/resume").json()["status"] == "provisioning"
    assert second.post(f"{path}/wait_for_status", json={"statuses": ["running"]}).status_code == 200
    assert first.get(f"{path}/usage").json()["status"] == "running"
    assert first.post(f"{path}/shutdown").json()["status"] == "shutdown"
