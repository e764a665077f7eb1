"""SSH and PTY sessions of a running devbox: real ones, and under the same policy as everything in it."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from runloop_api_client.sdk.devbox import Devbox

from support.ssh_client import SshKey, run_ssh, ssh_options
from support.stage import Stage, open_stage, run
from support.world import ALLOWED, DENIED, populate

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="openssh-client is not installed"),
]
WAIT_S = 30.0
DOMAIN = "tunnel.outgate.test"
FRONT = "127.0.0.1:18443"
SSH = "127.0.0.1:12222"


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    """As the other modules', with tunnels, for the PTY sessions behind them."""
    environment = {
        "OUTGATE_TUNNEL_DOMAIN": DOMAIN,
        "OUTGATE_TUNNEL_LISTEN": FRONT,
        "OUTGATE_SSH_LISTEN": SSH,
        "OUTGATE_SSH_HOST": SSH,
    }
    with open_stage(environment=environment) as stage:
        populate(stage.internet)
        yield stage


def make_key(devbox: Devbox, directory: Path) -> SshKey:
    made = devbox.net.create_ssh_key()
    host, _, port = made.url.rpartition(":")
    file = directory / f"key-{devbox.id}"
    file.write_text(made.ssh_private_key)
    file.chmod(0o600)
    return SshKey(made.id, made.ssh_user, host, int(port), file)


def test_what_a_session_reaches_is_what_the_policy_allows(stage: Stage, tmp_path: Path) -> None:
    since_s = stage.internet.now_s()
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    key = make_key(stage.devbox(policy), tmp_path)
    allowed = run_ssh(key, f"curl -sk --max-time 10 https://{ALLOWED.name}/")
    assert (allowed.returncode, allowed.stdout.decode()) == (0, f"hello from {ALLOWED.name}\n")
    for target in (f"https://{DENIED.name}/", f"https://{DENIED.address4}/", f"http://[{DENIED.address6}]/"):
        for options in ((), ("-tt",)):
            done = run_ssh(key, f"curl -sk --max-time 10 {target}", options=options)
            assert done.returncode != 0, done
    journal = stage.internet.journal(since_s=since_s)
    assert journal.reached(ALLOWED.address4) or journal.reached(ALLOWED.address6)
    assert not journal.reached(DENIED.address4)
    assert not journal.reached(DENIED.address6)
    assert DENIED.name not in {query.name for query in journal.queries}
    # Live: the session that is open feels an update as any program does.
    policy.update(allowed_hostnames=[])
    assert run_ssh(key, f"curl -sk --max-time 10 https://{ALLOWED.name}/").returncode != 0


def test_forwarding_reaches_the_devboxs_own_loopback_and_nothing_beyond(stage: Stage, tmp_path: Path) -> None:
    since_s = stage.internet.now_s()
    devbox = stage.devbox(stage.policy(allow_all=True))
    key = make_key(devbox, tmp_path)
    run(devbox, "mkdir -p /tmp/site && echo from the inside >/tmp/site/page")
    server = "cd /tmp/site && (setsid python3 -m http.server --bind 127.0.0.1 8123 >/dev/null 2>&1 &)"
    assert run(devbox, server).exit_code == 0
    wait = "for i in $(seq 100); do curl -s http://127.0.0.1:8123/page && exit 0; sleep 0.1; done; exit 1"
    assert run(devbox, wait).stdout == "from the inside\n"
    request = b"GET /page HTTP/1.0\r\n\r\n"
    for name in ("localhost", "127.0.0.1"):
        assert run_ssh(key, options=["-W", f"{name}:8123"], stdin=request).stdout.endswith(b"from the inside\n")
    for target in (f"{ALLOWED.address4}:80", f"{ALLOWED.name}:80", "127.0.0.1:18080"):
        done = run_ssh(key, options=["-W", target], stdin=request)
        assert done.returncode != 0, target  # the last one is the host's own api, which is not the devbox's port
        assert done.stdout == b""
    assert not stage.internet.journal(since_s=since_s).reached(ALLOWED.address4)


def test_a_session_is_the_devboxs_user_in_its_home(stage: Stage, tmp_path: Path) -> None:
    devbox = stage.devbox(None, environment={"GIVEN": "by the box"})
    key = make_key(devbox, tmp_path)
    done = run_ssh(key, 'id -un; pwd; echo "$GIVEN"; hostname; exit 9')
    assert done.returncode == 9
    assert done.stdout.decode().split("\n")[:3] == ["user", "/home/user", "by the box"]
    assert b"/dev/pts/0" in run_ssh(key, "tty", options=["-tt"]).stdout
    assert run_ssh(key, "cat /proc/self/status", options=["-T"]).stdout.count(b"NoNewPrivs:\t1") == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_by_tls_as_the_founding_client_goes(stage: Stage, tmp_path: Path) -> None:
    key = make_key(stage.devbox(None), tmp_path)
    proxy = f"openssl s_client -quiet -verify_quiet -servername ssh.outgate.test -connect {FRONT} 2>/dev/null"
    payload = os.urandom(300_000)
    done = run_ssh(key, "cat; exit 3", options=[f"-oProxyCommand={proxy}"], stdin=payload)
    assert (done.returncode, done.stdout == payload) == (3, True)


def test_files_by_scp_sftp_and_rsync(stage: Stage, tmp_path: Path) -> None:
    devbox = stage.devbox(None)
    key = make_key(devbox, tmp_path)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3_000_000))
    place = f"{key.username}@{key.host}"
    scp = ["scp", *ssh_options(key), "-P", str(key.port), "-q"]
    subprocess.run([*scp, str(big), f"{place}:big"], check=True, timeout=WAIT_S)
    subprocess.run([*scp, f"{place}:big", str(tmp_path / "back")], check=True, timeout=WAIT_S)
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    assert run(devbox, "stat -c '%U %s' ~/big").stdout == "user 3000000\n"
    # What it may read is decided in the devbox: the host's own files are not there, root's are closed.
    for closed in ("/root/x", "/etc/shadow", str(tmp_path / "big")):
        done = subprocess.run(
            [*scp, f"{place}:{closed}", str(tmp_path / "got")], check=False, timeout=WAIT_S, capture_output=True
        )
        assert done.returncode == 1, closed
    if shutil.which("rsync") is not None:
        shell = " ".join(["ssh", *ssh_options(key), "-p", str(key.port)])
        subprocess.run(["rsync", "-e", shell, str(big), f"{place}:copy"], check=True, timeout=WAIT_S)
        assert run(devbox, "cmp big copy && echo same").stdout == "same\n"


def test_suspending_ends_sessions_and_the_key_outlives_it(stage: Stage, tmp_path: Path) -> None:
    devbox = stage.devbox(None)
    key = make_key(devbox, tmp_path)
    words = ["ssh", *ssh_options(key), "-p", str(key.port), f"{key.username}@{key.host}", "echo up; sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        devbox.suspend()
        assert client.wait(WAIT_S) != 0
    assert run_ssh(key, "true").returncode == 255
    devbox.resume()
    assert run_ssh(key, "echo again").stdout == b"again\n"


def test_a_pty_session_through_the_tunnel(stage: Stage) -> None:
    since_s = stage.internet.now_s()
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name]))
    tunnel = stage.client.api.devboxes.create_pty_tunnel(devbox.id)
    headers = {
        "host": f"1-{tunnel.tunnel_key}.{DOMAIN}",
        "x-runloop-tunnel-authorization": f"Bearer {tunnel.auth_token}",
    }

    async def read_until(frames: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
        data = b""
        while wanted not in data:
            frame = await frames.receive(timeout=WAIT_S)
            assert frame.type is aiohttp.WSMsgType.BINARY, (frame, data)
            data += frame.data
        return data

    async def work() -> None:
        place = f"https://{FRONT}"
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=False)) as client:
            async with client.get(f"{place}/pty/main?cols=100&rows=30") as answer:
                assert answer.status == 200, await answer.text()
                state = await answer.json()
                assert (state["created"], state["cols"], state["rows"]) == (True, 100, 30)
            async with client.ws_connect(f"{place}{state['connect_url']}") as frames:
                await frames.send_bytes(b"tty; stty size; id -un\n")
                said = await read_until(frames, b"\r\nuser\r\n")
                assert b"/dev/pts/0" in said
                assert b"30 100" in said
                await frames.send_bytes(f"curl -sk --max-time 10 https://{ALLOWED.name}/\n".encode())
                await read_until(frames, f"hello from {ALLOWED.name}\r\n".encode())
                await frames.send_bytes(f"curl -sk --max-time 10 https://{DENIED.address4}/; echo status=$?\n".encode())
                await read_until(frames, b"status=7")
                kept = "kept=here; sleep 1000\n"
                await frames.send_bytes(kept.encode())
            async with client.post(f"{place}/pty/main/control", json={"action": "signal", "signal": "INT"}) as answer:
                assert answer.status == 200, await answer.text()
            for _ in range(200):  # that a client has gone is noticed a moment later
                async with client.get(f"{place}/pty/main") as answer:
                    if not (await answer.json())["attached"]:
                        break
                await asyncio.sleep(0.05)
            async with client.ws_connect(f"{place}/pty/main") as frames:
                await frames.send_bytes(b"echo $kept\n")
                await read_until(frames, b"\rhere\r\n")
                connection = frames.get_extra_info("socket")
            async with client.get(
                f"{place}/pty/main", headers={"x-runloop-tunnel-authorization": "Bearer no"}
            ) as answer:
                assert answer.status == 401
            # A WebSocket's connection outlives its client until the far side has answered TLS's close_notify.
            for _ in range(200):
                if connection.fileno() == -1:
                    break
                await asyncio.sleep(0.05)
            assert connection.fileno() == -1

    asyncio.run(work())
    assert not stage.internet.journal(since_s=since_s).reached(DENIED.address4)
