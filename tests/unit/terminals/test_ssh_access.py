"""Who gets in by SSH, for how long, and what is kept of it."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from outgate.api import ssh_server
from outgate.api.ssh_server import load_host_key
from outgate.control import pty, ssh_keys
from outgate.control.terminal_access import TerminalActivity, forget_useless_access
from outgate.store.devboxes import find_devbox
from outgate.store.terminal_access import find_pty_tunnel
from support.local_terminals import LocalRuntime
from support.ssh_client import SshKey, run_ssh, ssh_options
from support.terminal_world import TerminalWorld

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="openssh-client is not installed")
WAIT_S = 15.0


def account_of(world: TerminalWorld) -> str:
    with world.server.client(world.api_key) as client:
        found: str = client.get("/v1/accounts/me").json()["id"]
        return found


def stored_keys(world: TerminalWorld, table: str, devbox_id: str) -> int:
    query = f"SELECT count(*) FROM {table} WHERE devbox_id = '{devbox_id}'"  # noqa: S608 - names of the test's own
    return world.server.database.read_now(lambda tx: int(tx.exec_driver_sql(query).scalar_one()))


def test_what_a_key_is(world: TerminalWorld) -> None:
    devbox_id = world.devbox()
    answer = world.post(f"/v1/devboxes/{devbox_id}/create_ssh_key")
    made = answer.json()
    assert set(made) == {"id", "ssh_private_key", "ssh_user", "url"}
    assert (made["id"], made["ssh_user"]) == (devbox_id, "user")
    assert made["ssh_private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    key = asyncssh.import_private_key(made["ssh_private_key"])
    assert key.get_algorithm() == "ssh-ed25519"
    dump = Path(world.server.database_url.removeprefix("sqlite:///")).read_bytes()
    assert made["ssh_private_key"].splitlines()[2].encode() not in dump
    assert world.post(f"/v1/devboxes/{devbox_id}/create_ssh_key").json()["ssh_private_key"] != made["ssh_private_key"]


def test_a_key_opens_its_own_devbox_for_its_own_user_alone(world: TerminalWorld, tmp_path: Path) -> None:
    key = world.ssh_key(world.devbox())
    assert run_ssh(key, "true").returncode == 0
    assert run_ssh(replace(key, username="root"), "true").returncode == 255
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(stranger))
    stranger.chmod(0o600)
    refused = run_ssh(replace(key, file=stranger), "true")
    assert refused.returncode == 255
    assert b"Permission denied (publickey)" in refused.stderr


def test_the_user_is_the_devboxs_own(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox(launch_parameters={"user_parameters": {"username": "root", "uid": 0}}))
    assert key.username == "root"
    assert run_ssh(key, "true").returncode == 0


def test_other_ways_to_log_in_are_not_offered(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())

    async def try_password() -> None:
        await asyncssh.connect(
            key.host, key.port, username="user", password="x", known_hosts=None, client_keys=None, config=None
        )

    with pytest.raises(asyncssh.PermissionDenied):
        asyncio.run(try_password())


def test_the_end_of_the_devbox_ends_its_connections_and_closes_the_door(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    words = ["ssh", *ssh_options(key), "-p", str(key.port), f"{key.username}@{key.host}", "echo up; sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        assert world.post(f"/v1/devboxes/{key.devbox_id}/shutdown").status_code == 200
        assert client.wait(WAIT_S) == 255
    assert run_ssh(key, "true").returncode == 255


def test_a_suspended_devbox_is_left_and_its_key_works_again_when_it_is_resumed(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    words = ["ssh", *ssh_options(key), "-p", str(key.port), f"{key.username}@{key.host}", "echo up; sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        assert world.post(f"/v1/devboxes/{key.devbox_id}/suspend").status_code == 200
        assert client.wait(WAIT_S) == 255
    assert run_ssh(key, "true").returncode == 255
    wait_for(world, key.devbox_id, "suspended")
    answer = world.post(f"/v1/devboxes/{key.devbox_id}/create_ssh_key")
    assert (answer.status_code, answer.json()["code"]) == (400, "devbox_not_running")
    assert world.post(f"/v1/devboxes/{key.devbox_id}/resume").status_code == 200
    wait_for(world, key.devbox_id, "running")
    assert run_ssh(key, "true").returncode == 0


def wait_for(world: TerminalWorld, devbox_id: str, status: str) -> None:
    body = {"statuses": [status], "timeout_seconds": 20}
    assert world.post(f"/v1/devboxes/{devbox_id}/wait_for_status", body).status_code == 200


def test_a_host_that_lost_the_devbox_says_so(world: TerminalWorld, runtime: LocalRuntime) -> None:
    key = world.ssh_key(world.devbox())
    runtime.stopped.add(key.devbox_id)
    done = run_ssh(key, "true")
    assert done.returncode == 255
    assert b"is not running on this host" in done.stderr


def test_too_many_keys_end_the_connection(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    wrong = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(ssh_server.KEYS_TRIED_MAX + 1)]

    async def try_all() -> None:
        await asyncssh.connect(key.host, key.port, username="user", client_keys=wrong, known_hosts=None, config=None)

    with pytest.raises(asyncssh.DisconnectError, match="Too many keys"):
        asyncio.run(try_all())


async def run_from(source: str, key: SshKey) -> str:
    """What a program says that is run from that address."""
    async with asyncssh.connect(
        key.host,
        key.port,
        local_addr=(source, 0),
        username="user",
        client_keys=[str(key.file)],
        known_hosts=None,
        config=None,
    ) as client:
        return str((await client.run("echo in", check=True)).stdout)


def test_strangers_do_not_take_all_places(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    silent = [socket.create_connection((key.host, key.port)) for _ in range(ssh_server.STRANGERS_PER_CLIENT_MAX)]
    try:
        deadline = time.monotonic() + WAIT_S
        while run_ssh(key, "true").returncode == 0:
            assert time.monotonic() < deadline
        assert asyncio.run(run_from("127.0.0.9", key)) == "in\n", "another client has places of its own"
    finally:
        for connection in silent:
            connection.close()
    deadline = time.monotonic() + WAIT_S
    while run_ssh(key, "true").returncode != 0:
        assert time.monotonic() < deadline


def test_a_connection_has_a_bounded_number_of_programs(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())

    async def open_many() -> None:
        async with asyncssh.connect(
            key.host, key.port, username="user", client_keys=[str(key.file)], known_hosts=None, config=None
        ) as client:
            programs = [await client.create_process("sleep 100") for _ in range(ssh_server.PROGRAMS_MAX)]
            with pytest.raises(asyncssh.ChannelOpenError, match="open already"):
                await client.create_process("true")
            programs[0].close()
            await programs[0].wait_closed()
            done = await client.run("echo room", check=True)
            assert done.stdout == "room\n"

    asyncio.run(open_many())


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, b"SSH-2.0-x\r\n" + b"\xff" * 100_000])
def test_nonsense_is_dropped_and_harms_nobody(world: TerminalWorld, sent: bytes) -> None:
    key = world.ssh_key(world.devbox())
    with socket.create_connection((key.host, key.port)) as client:
        client.settimeout(WAIT_S)
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert run_ssh(key, "true").returncode == 0


def test_the_newest_keys_and_tunnels_of_a_devbox_are_kept(
    world: TerminalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_keys, "KEYS_PER_DEVBOX_MAX", 3)
    monkeypatch.setattr(pty, "TUNNELS_PER_DEVBOX_MAX", 3)
    devbox_id = world.devbox()
    first = world.ssh_key(devbox_id)
    tunnel = world.pty_tunnel(devbox_id)["host"].partition(".")[0].removeprefix("1-")
    for _ in range(ssh_keys.KEYS_PER_DEVBOX_MAX):
        last = world.ssh_key(devbox_id)
    for _ in range(pty.TUNNELS_PER_DEVBOX_MAX):
        world.pty_tunnel(devbox_id)
    assert stored_keys(world, "ssh_keys", devbox_id) == ssh_keys.KEYS_PER_DEVBOX_MAX
    assert stored_keys(world, "pty_tunnels", devbox_id) == pty.TUNNELS_PER_DEVBOX_MAX
    assert run_ssh(first, "true").returncode == 255
    assert run_ssh(last, "true").returncode == 0
    assert world.server.database.read_now(lambda tx: find_pty_tunnel(tx, tunnel)) is None


def test_keys_of_ended_devboxes_are_forgotten(world: TerminalWorld) -> None:
    ended, alive = world.devbox(), world.devbox()
    for devbox_id in (ended, alive):
        world.ssh_key(devbox_id)
        world.pty_tunnel(devbox_id)
    world.post(f"/v1/devboxes/{ended}/shutdown")
    forgotten = asyncio.run_coroutine_threadsafe(forget_useless_access(world.server.services), world.server._loop)
    assert forgotten.result(WAIT_S) >= 2
    assert [stored_keys(world, table, ended) for table in ("ssh_keys", "pty_tunnels")] == [0, 0]
    assert [stored_keys(world, table, alive) for table in ("ssh_keys", "pty_tunnels")] == [1, 1]


def test_unknown_and_foreign_devboxes(world: TerminalWorld) -> None:
    devbox_id = world.devbox()
    stranger = world.server.new_account(f"stranger-{os.getpid()}").api_key
    for path in ("create_ssh_key", "create_pty_tunnel"):
        for wrong in ("nonsense", "dbx_000000000000000000000"):
            assert world.post(f"/v1/devboxes/{wrong}/{path}").status_code == 404
        with world.server.client(stranger) as client:
            assert client.post(f"/v1/devboxes/{devbox_id}/{path}").status_code == 404
        with world.server.client("nobody") as client:
            assert client.post(f"/v1/devboxes/{devbox_id}/{path}").status_code == 401


def test_the_host_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "host-key"
    first = load_host_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_host_key(file).public_data == first.public_data
    assert [path.name for path in tmp_path.iterdir()] == ["host-key"]


def test_use_keeps_a_devbox_from_being_idle(world: TerminalWorld) -> None:
    launch = {"after_idle": {"idle_time_seconds": 3600, "on_idle": "shutdown"}}
    devbox_id = world.devbox(launch_parameters=launch)
    account_id = account_of(world)

    def end_ms() -> int:
        row = world.server.database.read_now(lambda tx: find_devbox(tx, account_id, devbox_id))
        assert row is not None
        return row.expire_time_ms

    async def note() -> None:
        activity = TerminalActivity(tell_every_s=0.05)
        telling = asyncio.ensure_future(activity.run(world.server.services))
        activity.note(devbox_id)
        async with asyncio.timeout(WAIT_S):
            while end_ms() <= before_ms:  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.02)
        telling.cancel()

    before_ms = end_ms()
    time.sleep(0.2)
    asyncio.run_coroutine_threadsafe(note(), world.server._loop).result(WAIT_S)
    assert end_ms() > before_ms
