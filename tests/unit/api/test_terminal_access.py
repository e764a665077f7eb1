"""``create_ssh_key`` and ``create_pty_tunnel`` where there is no SSH server. (What they open: tests/unit/terminals.)"""

from support.api_server import ApiServer


def test_without_an_ssh_server_a_key_is_refused_and_not_stored(server: ApiServer) -> None:
    with server.client(server.new_account("no-ssh").api_key) as client:
        devbox = client.post("/v1/devboxes").json()
        body = {"statuses": ["running"], "timeout_seconds": 20}
        assert client.post(f"/v1/devboxes/{devbox['id']}/wait_for_status", json=body).status_code == 200
        answer = client.post(f"/v1/devboxes/{devbox['id']}/create_ssh_key")
        assert (answer.status_code, answer.json()["code"]) == (400, "ssh_off")
        assert "OUTGATE_SSH_LISTEN" in answer.json()["message"]
        assert client.post("/v1/devboxes/nobody/create_ssh_key").status_code == 404
        # With a body that is none, or far too long.
        assert client.post(f"/v1/devboxes/{devbox['id']}/create_pty_tunnel", content=b"nonsense").status_code == 200
        long = client.post(f"/v1/devboxes/{devbox['id']}/create_pty_tunnel", content=b"x" * 1_100_000)
        assert long.status_code == 413
    query = "SELECT count(*) FROM ssh_keys"
    assert server.database.read_now(lambda tx: tx.exec_driver_sql(query).scalar_one()) == 0
