"""A devbox's log over HTTP."""

import httpx

from support.api_server import ApiServer


def test_commands_and_their_lines_by_execution_and_by_shell(client: httpx.Client, server: ApiServer) -> None:
    box = client.post("/v1/devboxes/create_and_await_running").json()["id"]
    path = f"/v1/devboxes/{box}"
    assert client.get(f"{path}/logs").json() == {"logs": []}
    ids = []
    for command, shell in (("echo one", None), ("echo two", "s")):
        body = {"command": command, "command_id": command, "shell_name": shell}
        view = client.post(f"{path}/execute", json=body).json()
        assert view["shell_name"] == shell
        ids.append(view["execution_id"])
    logs = client.get(f"{path}/logs").json()["logs"]
    assert [(entry["cmd"], entry["message"]) for entry in logs] == [
        ("echo one", None),
        (None, "one"),
        ("echo two", None),
        (None, "two"),
    ]
    assert {"level", "source", "timestamp_ms", "cmd_id", "exit_code", "shell_name"} <= set(logs[0])
    for query in ({"execution_id": ids[1]}, {"shell_name": "s"}):
        found = client.get(f"{path}/logs", params=query).json()["logs"]
        assert [entry["cmd_id"] for entry in found] == [ids[1]] * 2
    assert client.get(f"{path}/logs", params={"execution_id": "exec_" + "0" * 21}).json() == {"logs": []}
    assert client.get(f"{path}/logs", params={"execution_id": "x"}).status_code == 404
    assert client.get(f"/v1/devboxes/dbx_{'0' * 21}/logs").status_code == 404
    other = server.new_account("a stranger to the log").api_key
    assert client.get(f"{path}/logs", headers={"authorization": f"Bearer {other}"}).status_code == 404
    client.post(f"{path}/shutdown")
