"""Executions over HTTP; commands really run, by /bin/sh on this machine."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from outgate.client.transport import PeerRefusedError
from outgate.model.executions import StdinOutcome
from support.api_server import ApiServer


@pytest.fixture
def path(client: httpx.Client) -> Iterator[str]:
    view = client.post("/v1/devboxes/create_and_await_running").json()
    assert view["status"] == "running"
    yield f"/v1/devboxes/{view['id']}"
    client.post(f"/v1/devboxes/{view['id']}/shutdown")


def start(client: httpx.Client, path: str, command: str, **headers: str) -> dict[str, Any]:
    answer = client.post(f"{path}/execute_async", json={"command": command}, headers=headers)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


def test_execute_async_then_wait(client: httpx.Client, path: str) -> None:
    view = start(client, path, "echo out; echo err >&2; exit 3")
    wait = f"{path}/executions/{view['execution_id']}/wait_for_status"
    done = client.post(wait, json={"statuses": ["completed"]}).json()
    assert (done["status"], done["exit_status"], done["stdout"], done["stderr"]) == ("completed", 3, "out\n", "err\n")
    assert done["devbox_id"] == path.rsplit("/", 1)[1]
    assert client.get(f"{path}/executions/{view['execution_id']}").json() == done


def test_the_last_lines_are_kept_and_it_says_so(client: httpx.Client, path: str) -> None:
    view = start(client, path, "seq 150")
    wait = f"{path}/executions/{view['execution_id']}/wait_for_status"
    done = client.post(wait, json={"statuses": ["completed"]}).json()
    assert done["stdout"].splitlines() == [str(n) for n in range(51, 151)]
    assert done["stdout_truncated"] is True
    all_of_it = client.get(f"{path}/executions/{view['execution_id']}", params={"last_n": "1000"}).json()
    assert (len(all_of_it["stdout"].splitlines()), all_of_it["stdout_truncated"]) == (150, False)


def test_a_wait_that_is_not_met_holds_and_asks_to_be_repeated(client: httpx.Client, path: str) -> None:
    view = start(client, path, "sleep 20")
    wait = f"{path}/executions/{view['execution_id']}/wait_for_status"
    started = time.monotonic()
    answer = client.post(wait, json={"statuses": ["completed"], "timeout_seconds": 0.6})
    assert time.monotonic() - started >= 0.6
    assert (answer.status_code, answer.headers["x-should-retry"]) == (408, "true")
    assert client.post(wait, json={"statuses": ["running"]}).json()["status"] == "running"
    killed = client.post(f"{path}/executions/{view['execution_id']}/kill", json={"kill_process_group": True}).json()
    assert killed["status"] == "completed"
    # Nothing comes after completion: a wait for something else is held all the same.
    started = time.monotonic()
    late = client.post(wait, json={"statuses": ["queued"], "timeout_seconds": 0.4})
    assert late.status_code == 408
    assert time.monotonic() - started >= 0.4


def test_execute_runs_once_for_each_command_id(client: httpx.Client, path: str, server: ApiServer) -> None:
    body = {"command": "echo $$", "command_id": "0192f0c1-0000-7000-8000-000000000000"}
    first, second = [client.post(f"{path}/execute", json=body).json() for _ in range(2)]
    assert first["status"] == "completed"
    assert second == first
    other = client.post(f"{path}/execute", json=body | {"command_id": "another"}).json()
    assert other["execution_id"] != first["execution_id"]


def test_execute_answers_running_when_its_hold_is_over(client: httpx.Client, path: str) -> None:
    started = time.monotonic()
    body = {"command": "sleep 1000", "command_id": "x", "optimistic_timeout": 0.4}
    view = client.post(f"{path}/execute", json=body).json()
    assert time.monotonic() - started >= 0.4
    assert (view["status"], view["exit_status"]) == ("running", None)
    client.post(f"{path}/executions/{view['execution_id']}/kill")


def test_execute_sync_runs_to_the_end(client: httpx.Client, path: str) -> None:
    done = client.post(f"{path}/execute_sync", json={"command": "sleep 0.3; seq 200; exit 7"}).json()
    assert (done["exit_status"], len(done["stdout"].splitlines()), done["stderr"]) == (7, 200, "")


def test_a_call_that_is_sent_twice_starts_one_command(client: httpx.Client, path: str) -> None:
    first, second = [start(client, path, "true", **{"x-request-id": "k1"})["execution_id"] for _ in range(2)]
    assert first == second
    assert start(client, path, "true", **{"x-request-id": "k2"})["execution_id"] != first
    assert start(client, path, "false", **{"x-request-id": "k1"})["execution_id"] != first
    assert start(client, path, "true")["execution_id"] != start(client, path, "true")["execution_id"]


@pytest.mark.parametrize("execution_id", ["x", "exec_" + "a" * 21, "exec_" + "a" * 20 + "%2F"])
def test_unknown_executions(client: httpx.Client, path: str, execution_id: str) -> None:
    for answer in (
        client.get(f"{path}/executions/{execution_id}"),
        client.post(f"{path}/executions/{execution_id}/kill", headers={"content-type": "application/json"}),
        client.post(f"{path}/executions/{execution_id}/wait_for_status", json={"statuses": ["completed"]}),
    ):
        assert (answer.status_code, answer.json()["code"]) in ((404, "execution_not_found"), (404, "no_such_route"))


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("execute", {"command": "true"}),
        ("execute", {"command": "true", "command_id": ""}),
        ("execute", {"command": "true", "command_id": "x", "optimistic_timeout": "1"}),
        ("execute_async", {}),
        ("execute_async", {"command": None}),
        ("execute_async", {"command": "a\u0000b"}),
        ("execute_async", {"command": "x" * 131_073}),
        ("execute_sync", {"command": ["true"]}),
    ],
)
def test_commands_that_make_no_sense(client: httpx.Client, path: str, route: str, body: dict[str, Any]) -> None:
    assert client.post(f"{path}/{route}", json=body).status_code == 400


def test_commands_need_a_running_devbox(client: httpx.Client) -> None:
    view = client.post("/v1/devboxes/create_and_await_running").json()
    client.post(f"/v1/devboxes/{view['id']}/shutdown")
    answer = client.post(f"/v1/devboxes/{view['id']}/execute_async", json={"command": "true"})
    assert (answer.status_code, answer.json()["code"]) == (409, "devbox_not_running")
    assert answer.headers["x-should-retry"] == "false"


def test_a_host_that_does_not_answer_is_a_503_to_try_again(client: httpx.Client, path: str, server: ApiServer) -> None:
    view = start(client, path, "true")
    server.gateway.fail = True
    try:
        for answer in (
            client.post(f"{path}/execute_async", json={"command": "true"}),
            client.get(f"{path}/executions/{view['execution_id']}"),
            client.post(f"{path}/executions/{view['execution_id']}/kill"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "host_unavailable")
            assert answer.headers["x-should-retry"] == "true"
    finally:
        server.gateway.fail = False


def test_a_kill_reaches_as_far_as_it_was_asked_to(client: httpx.Client, path: str, server: ApiServer) -> None:
    for body, is_group in (({}, False), ({"kill_process_group": None}, False), ({"kill_process_group": True}, True)):
        view = start(client, path, "sleep 20")
        client.post(f"{path}/executions/{view['execution_id']}/kill", json=body)
        assert server.gateway.kills[-1] == (view["execution_id"], is_group)


def test_typing_into_a_command(client: httpx.Client, path: str, server: ApiServer) -> None:
    body = {"command": "cat; echo end", "attach_stdin": True}
    execution_id = client.post(f"{path}/execute_async", json=body).json()["execution_id"]
    execution = f"{path}/executions/{execution_id}"
    sent = client.post(f"{execution}/send_std_in", json={"text": "hello\n"})
    expected = {"devbox_id": path.rsplit("/", 1)[1], "execution_id": execution_id, "success": True, "message": None}
    assert (sent.status_code, sent.json()) == (200, expected)
    assert client.post(f"{execution}/send_std_in", json={"signal": "EOF"}).json()["success"]
    done = client.post(f"{execution}/wait_for_status", json={"statuses": ["completed"]}).json()
    assert done["stdout"] == "hello\nend\n"
    server.gateway.stdin_outcome = StdinOutcome(is_delivered=False, detail="It does not read.")
    try:
        late = client.post(f"{execution}/send_std_in", json={"signal": "INTERRUPT"}).json()
        assert (late["success"], late["message"]) == (False, "It does not read.")
    finally:
        server.gateway.stdin_outcome = StdinOutcome(is_delivered=True)


def test_what_is_typed_twice_with_one_request_id_says_so_to_the_host(
    client: httpx.Client, path: str, server: ApiServer
) -> None:
    execution = f"{path}/executions/{start(client, path, 'true')['execution_id']}"
    for key in ("a", "a", "b"):
        client.post(f"{execution}/send_std_in", json={"text": "x"}, headers={"x-request-id": key})
    ids = [request.request_id for request in server.gateway.stdin[-3:]]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    "body", [{}, {"text": None}, {"text": "x", "signal": "EOF"}, {"signal": "KILL"}, {"text": 1}, {"signal": ""}]
)
def test_what_cannot_be_typed(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    view = start(client, path, "true")
    assert client.post(f"{path}/executions/{view['execution_id']}/send_std_in", json=body).status_code == 400
    assert client.post(f"{path}/executions/exec_{'0' * 21}/send_std_in", json={"text": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("code", "status"), [("stdin_not_attached", 400), ("devbox_busy", 409), ("sandbox_failed", 503)]
)
def test_refusals_of_the_host(client: httpx.Client, path: str, server: ApiServer, code: str, status: int) -> None:
    view = start(client, path, "true")
    server.gateway.refusal = PeerRefusedError("The reason.", status=409, code=code)
    try:
        for answer in (
            client.post(f"{path}/executions/{view['execution_id']}/send_std_in", json={"text": "x"}),
            client.post(f"{path}/execute_async", json={"command": "true"}),
        ):
            assert (answer.status_code, "The reason." in answer.json()["message"]) == (status, True)
    finally:
        server.gateway.refusal = None


def test_a_command_that_is_waited_for_cannot_be_typed_into(client: httpx.Client, path: str) -> None:
    answer = client.post(f"{path}/execute_sync", json={"command": "cat", "attach_stdin": True})
    assert (answer.status_code, answer.json()["field"]) == (400, "attach_stdin")


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", 1])
def test_shell_names_that_are_none(client: httpx.Client, path: str, name: object) -> None:
    body = {"command": "true", "command_id": "x", "shell_name": name}
    assert client.post(f"{path}/execute", json=body).status_code == 400
