"""Disk snapshots over HTTP, with a host that only pretends."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, update

from outgate.control import snapshot_following
from outgate.control.snapshot_states import BEGIN_MS_MAX
from outgate.model.snapshots import SnapshotPhase, SnapshotState
from outgate.store.devboxes import find_devbox, save_devbox
from outgate.store.snapshot_tables import snapshots
from support.api_server import ApiServer

DEVBOXES = "/v1/devboxes"
SNAPSHOTS = "/v1/devboxes/disk_snapshots"
IN_PROGRESS = SnapshotState(SnapshotPhase.IN_PROGRESS)
UNKNOWN = "snp_" + "0" * 21
PATIENCE_S = 10.0


@pytest.fixture
def devbox_id(client: httpx.Client) -> str:
    answer = client.post(f"{DEVBOXES}/create_and_await_running", json={})
    assert answer.json()["status"] == "running"
    return str(answer.json()["id"])


@pytest.fixture
def slow_host(server: ApiServer) -> Iterator[None]:
    """Its snapshots are in progress until the test says otherwise."""
    usual = server.gateway.snapshot_outcome
    server.gateway.snapshot_outcome = IN_PROGRESS
    yield
    server.gateway.snapshot_outcome = usual


def snapshot(client: httpx.Client, devbox_id: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk", json=body)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def status(client: httpx.Client, snapshot_id: str) -> dict[str, Any]:
    answer = client.get(f"{SNAPSHOTS}/{snapshot_id}/status")
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def listed(client: httpx.Client, **query: str) -> list[str]:
    answer = client.get(SNAPSHOTS, params=query)
    assert answer.status_code == 200, answer.text
    return [view["id"] for view in answer.json()["snapshots"]]


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_snapshot_from_its_beginning_to_its_end(client: httpx.Client, server: ApiServer, devbox_id: str) -> None:
    view = snapshot(client, devbox_id, name="s", commit_message="why\nso", metadata={"k": "v"})
    assert view["id"].startswith("snp_")
    assert view == {
        "id": view["id"],
        "create_time_ms": view["create_time_ms"],
        "metadata": {"k": "v"},
        "source_devbox_id": devbox_id,
        "source_blueprint_id": None,
        "name": "s",
        "commit_message": "why\nso",
        "size_bytes": 4096,
    }
    assert status(client, view["id"]) == {"status": "complete", "error_message": None, "snapshot": view}
    assert listed(client) == [view["id"]]

    changed = client.post(f"{SNAPSHOTS}/{view['id']}", json={"name": "t", "metadata": {"a": "b"}}).json()
    assert changed == {**view, "name": "t", "metadata": {"a": "b"}}
    assert client.post(f"{SNAPSHOTS}/{view['id']}").json() == changed
    cleared = client.post(f"{SNAPSHOTS}/{view['id']}", json={"name": "", "metadata": {}, "commit_message": ""}).json()
    assert (cleared["name"], cleared["metadata"], cleared["commit_message"]) == ("", {}, "")

    assert view["id"] in server.gateway.snapshots
    deleted = client.post(f"{SNAPSHOTS}/{view['id']}/delete", headers={"content-type": "application/json"})
    assert (deleted.status_code, deleted.json()) == (200, {})
    assert status(client, view["id"]) == {"status": "deleted", "error_message": None, "snapshot": None}
    assert listed(client) == []
    for path in ("", "/delete"):
        assert client.post(f"{SNAPSHOTS}/{view['id']}{path}").status_code == 404
    until(lambda: view["id"] not in server.gateway.snapshots)


@pytest.mark.usefixtures("slow_host")
def test_one_in_progress_is_not_deleted_and_ends_without_being_looked_at(
    client: httpx.Client, server: ApiServer, devbox_id: str
) -> None:
    begun = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk_async").json()
    assert (begun["size_bytes"], begun["name"]) == (None, None)
    assert status(client, begun["id"])["status"] == "in_progress"
    refused = client.post(f"{SNAPSHOTS}/{begun['id']}/delete")
    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
    assert refused.json()["code"] == "snapshot_in_progress"
    shutdown = client.post(f"{DEVBOXES}/{devbox_id}/shutdown")
    assert (shutdown.status_code, shutdown.headers["x-should-retry"]) == (409, "false")
    server.gateway.snapshots[begun["id"]] = SnapshotState(SnapshotPhase.COMPLETE, size_bytes=5)
    until(lambda: client.get(SNAPSHOTS).json()["snapshots"][0]["size_bytes"] == 5)
    assert client.post(f"{DEVBOXES}/{devbox_id}/shutdown").status_code == 200
    # It survives its source.
    assert status(client, begun["id"])["status"] == "complete"


@pytest.mark.usefixtures("slow_host")
def test_a_failed_one_says_why_and_can_be_deleted(client: httpx.Client, server: ApiServer, devbox_id: str) -> None:
    server.gateway.snapshot_outcome = SnapshotState(SnapshotPhase.ERROR, detail="No room.")
    refused = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "snapshot_failed")
    assert refused.headers["x-should-retry"] == "false"
    assert "No room." in refused.json()["message"]
    begun = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk_async", json={}).json()
    view = status(client, begun["id"])
    assert (view["status"], view["error_message"], view["snapshot"]["id"]) == ("error", "No room.", begun["id"])
    until(lambda: begun["id"] not in server.gateway.snapshots)
    started = client.post(DEVBOXES, json={"snapshot_id": begun["id"]})
    assert (started.status_code, started.json()["field"]) == (400, "snapshot_id")
    assert client.post(f"{SNAPSHOTS}/{begun['id']}/delete").status_code == 200
    assert status(client, begun["id"])["status"] == "deleted"


@pytest.mark.usefixtures("slow_host")
def test_one_that_its_host_forgot_ends_as_an_error(client: httpx.Client, server: ApiServer, devbox_id: str) -> None:
    begun = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk_async", json={}).json()
    del server.gateway.snapshots[begun["id"]]
    view = status(client, begun["id"])
    assert (view["status"], view["error_message"]) == (
        "error",
        "Its host was restarted before the snapshot was complete.",
    )


@pytest.mark.usefixtures("slow_host")
def test_one_whose_api_died_before_it_could_begin_ends_as_an_error(
    client: httpx.Client, server: ApiServer, devbox_id: str
) -> None:
    begun = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk_async", json={}).json()

    def forget(tx: Connection) -> None:
        tx.execute(update(snapshots).where(snapshots.c.id == begun["id"]).values(begun=False))

    def age(tx: Connection) -> None:
        older = snapshots.c.create_time_ms - BEGIN_MS_MAX - 1
        tx.execute(update(snapshots).where(snapshots.c.id == begun["id"]).values(create_time_ms=older))

    server.database.write_now(forget)
    del server.gateway.snapshots[begun["id"]]
    assert status(client, begun["id"])["status"] == "in_progress"  # it may still be asked
    server.database.write_now(age)
    until(lambda: begun["id"] not in server.gateway.snapshots and listed_status(client, begun["id"]) == "error")


def listed_status(client: httpx.Client, snapshot_id: str) -> str:
    return str(status(client, snapshot_id)["status"])


def test_a_host_that_does_not_answer(client: httpx.Client, server: ApiServer, devbox_id: str) -> None:
    server.gateway.fail = True
    try:
        begun = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk_async", json={}).json()
        assert status(client, begun["id"])["error_message"] == "Its host does not answer."
    finally:
        server.gateway.fail = False


def test_a_repeated_request_makes_one_snapshot(client: httpx.Client, devbox_id: str) -> None:
    headers = {"x-request-id": "one"}
    path = f"{DEVBOXES}/{devbox_id}/snapshot_disk"
    first, second = (client.post(path, json={"name": "n"}, headers=headers).json() for _ in range(2))
    assert first == second
    assert listed(client) == [first["id"]]
    assert client.post(path, json={"name": "m"}, headers=headers).status_code == 409
    for _ in range(2):
        assert client.post(f"{SNAPSHOTS}/{first['id']}/delete", headers=headers).status_code == 200


def test_lists_are_filtered_and_paged(client: httpx.Client, devbox_id: str) -> None:
    other = client.post(f"{DEVBOXES}/create_and_await_running", json={}).json()["id"]
    rows: tuple[dict[str, str], ...] = ({"a": "1"}, {"a": "2", "b": "x,y"}, {"a": "3", "key": "1"}, {})
    made = [snapshot(client, devbox_id, metadata=metadata)["id"] for metadata in rows]
    alien = snapshot(client, other, metadata={"a": "1"})["id"]
    one, two, three, four = made
    assert listed(client) == [alien, four, three, two, one]
    assert listed(client, devbox_id=devbox_id) == [four, three, two, one]
    assert listed(client, devbox_id="dbx_nothing") == []
    assert listed(client, source_blueprint_id="bpt_nothing") == []
    assert listed(client, **{"metadata[a]": "1"}) == [alien, one]
    assert listed(client, **{"metadata[a]": "1", "devbox_id": devbox_id}) == [one]
    assert listed(client, **{"metadata[a][in]": "1,2"}) == [alien, two, one]
    assert listed(client, **{"metadata[a][in]": "2,3", "metadata[key]": "1"}) == [three]
    assert listed(client, **{"metadata[b]": "x,y"}) == [two]
    assert listed(client, **{"metadata[A]": "1"}) == []
    page = client.get(SNAPSHOTS, params={"limit": 2}).json()
    assert ([view["id"] for view in page["snapshots"]], page["has_more"], page["total_count"]) == (
        [alien, four],
        True,
        5,
    )
    client.post(f"{SNAPSHOTS}/{four}/delete")
    rest = client.get(SNAPSHOTS, params={"starting_after": four, "include_total_count": "false"}).json()
    assert ([view["id"] for view in rest["snapshots"]], rest["has_more"], rest["total_count"]) == (
        [three, two, one],
        False,
        None,
    )
    client.post(f"{SNAPSHOTS}/{three}", json={"metadata": {"a": "1"}})
    assert listed(client, **{"metadata[a]": "1"}) == [alien, three, one]
    assert listed(client, **{"metadata[key]": "1"}) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "5001"}, "limit"),
        ({"starting_after": "dbx_1"}, "starting_after"),
        ({"metadata[a": "1"}, "metadata[a"),
        ({"metadata[a][out]": "1"}, "metadata[a][out]"),
        ({"metadata[a][in]": ",".join(map(str, range(101)))}, "metadata"),
        ({f"metadata[{'k' * 257}]": "1"}, "metadata key"),
        ({"metadata[k]": "v" * 4097}, "metadata[k]"),
        ({f"metadata[{n}]": "1" for n in range(101)}, "metadata"),
        ({"metadata[a\x00]": "1"}, "metadata key"),
    ],
)
def test_wrong_filters_are_named(client: httpx.Client, query: dict[str, str], field: str) -> None:
    answer = client.get(SNAPSHOTS, params=query)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": 1}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "n" * 257}, "name"),
        ({"commit_message": "m" * 1001}, "commit_message"),
        ({"commit_message": ["m"]}, "commit_message"),
        ({"metadata": "m"}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": {str(n): "" for n in range(101)}}, "metadata"),
    ],
)
def test_wrong_bodies_are_refused_and_store_nothing(
    client: httpx.Client, devbox_id: str, body: dict[str, Any], field: str
) -> None:
    for path in ("snapshot_disk", "snapshot_disk_async"):
        answer = client.post(f"{DEVBOXES}/{devbox_id}/{path}", json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert listed(client) == []
    made = snapshot(client, devbox_id, name="kept")
    assert client.post(f"{SNAPSHOTS}/{made['id']}", json=body).status_code == 400
    assert status(client, made["id"])["snapshot"] == made
    assert snapshot(client, devbox_id, commit_message="m" * 1000)["commit_message"] == "m" * 1000


def test_nobody_sees_anothers(client: httpx.Client, stranger: httpx.Client, devbox_id: str) -> None:
    mine = snapshot(client, devbox_id)["id"]
    for snapshot_id in (mine, UNKNOWN, "nonsense"):
        assert stranger.get(f"{SNAPSHOTS}/{snapshot_id}/status").status_code == 404
        for path in ("", "/delete"):
            assert stranger.post(f"{SNAPSHOTS}/{snapshot_id}{path}", json={}).status_code == 404
        refused = stranger.post(DEVBOXES, json={"snapshot_id": snapshot_id})
        assert (refused.status_code, refused.json()["field"]) == (400, "snapshot_id")
    for devbox in (devbox_id, "dbx_" + "0" * 21, "nonsense"):
        assert stranger.post(f"{DEVBOXES}/{devbox}/snapshot_disk", json={}).status_code == 404
    assert listed(stranger) == []
    assert status(client, mine)["status"] == "complete"


@pytest.mark.parametrize("state", ["provisioning", "initializing", "suspending", "failure", "shutdown"])
def test_a_devbox_that_cannot_be_snapshotted(
    client: httpx.Client, server: ApiServer, devbox_id: str, state: str
) -> None:
    account_id = client.get("/v1/accounts/me").json()["id"]

    def move(tx: Connection) -> None:
        row = find_devbox(tx, account_id, devbox_id)
        assert row is not None
        save_devbox(tx, replace(row, status=state))

    server.database.write_now(move)
    for path in ("snapshot_disk", "snapshot_disk_async"):
        refused = client.post(f"{DEVBOXES}/{devbox_id}/{path}", json={})
        assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
        assert f"is {state}" in refused.json()["message"]
    assert listed(client) == []


def test_a_suspended_devbox_can_be(client: httpx.Client, devbox_id: str) -> None:
    assert client.post(f"{DEVBOXES}/{devbox_id}/suspend").status_code == 200
    waited = client.post(f"{DEVBOXES}/{devbox_id}/wait_for_status", json={"statuses": ["suspended"]})
    assert waited.status_code == 200
    assert snapshot(client, devbox_id)["size_bytes"] == 4096


def test_a_devbox_from_a_snapshot_inherits_its_policy_unless_it_has_its_own(
    client: httpx.Client, server: ApiServer, policy_id: str
) -> None:
    launch = {"launch_parameters": {"network_policy_id": policy_id}}
    source = client.post(f"{DEVBOXES}/create_and_await_running", json=launch).json()["id"]
    made = snapshot(client, source)["id"]
    second = client.post("/v1/network-policies", json={"name": "second"}).json()["id"]

    heir = client.post(f"{DEVBOXES}/create_and_await_running", json={"snapshot_id": made}).json()
    assert heir["snapshot_id"] == made
    assert heir["launch_parameters"]["network_policy_id"] == policy_id
    told = server.agent.devboxes[heir["id"]]
    assert (told.policy_id, told.image) == (policy_id, made)

    own = {"snapshot_id": made, "launch_parameters": {"network_policy_id": second}}
    assert client.post(DEVBOXES, json=own).json()["launch_parameters"]["network_policy_id"] == second

    again = snapshot(client, heir["id"])["id"]
    for devbox_id in (source, heir["id"]):
        client.post(f"{DEVBOXES}/{devbox_id}/shutdown")
    # The snapshot does not keep the policy; but one that is gone is never replaced by a wider one.
    assert client.post(f"/v1/network-policies/{policy_id}/delete").status_code == 200
    refused = client.post(DEVBOXES, json={"snapshot_id": again})
    assert (refused.status_code, refused.json()["field"]) == (400, "launch_parameters.network_policy_id")
    assert client.post(DEVBOXES, json={**own, "snapshot_id": again}).status_code == 200


def test_the_default_policy_of_the_source_is_not_handed_on(
    client: httpx.Client, server: ApiServer, devbox_id: str
) -> None:
    made = snapshot(client, devbox_id)["id"]
    row = server.database.read_now(
        lambda tx: tx.execute(snapshots.select().where(snapshots.c.id == made)).mappings().one()
    )
    assert row["policy_id"] is None


def test_a_deleted_snapshot_stays_on_its_host_while_a_devbox_waits_to_start_from_it(
    client: httpx.Client, server: ApiServer, devbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = snapshot(client, devbox_id)["id"]
    monkeypatch.setattr(server.agent, "observe", lambda _devbox: None)
    waiting = client.post(DEVBOXES, json={"snapshot_id": made}).json()
    assert waiting["status"] == "provisioning"
    assert client.post(f"{SNAPSHOTS}/{made}/delete").status_code == 200
    time.sleep(2.5 * snapshot_following.LOOK_EVERY_S)
    assert made in server.gateway.snapshots
    client.post(f"{DEVBOXES}/{waiting['id']}/shutdown")
    until(lambda: made not in server.gateway.snapshots)


def test_an_account_may_have_so_many(client: httpx.Client, server: ApiServer, devbox_id: str) -> None:
    settings = server.services.settings
    kept = snapshot(client, devbox_id)["id"]
    object.__setattr__(server.services, "settings", replace(settings, snapshots_max=1))
    try:
        refused = client.post(f"{DEVBOXES}/{devbox_id}/snapshot_disk", json={})
        assert (refused.status_code, refused.json()["code"]) == (400, "snapshot_limit")
        client.post(f"{SNAPSHOTS}/{kept}/delete")
        snapshot(client, devbox_id)
    finally:
        object.__setattr__(server.services, "settings", settings)
