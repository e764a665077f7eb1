"""Tunnels on the real stack: from outside and from devbox to devbox, for both accounts and both states of the flag."""

import json
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runloop_api_client import RunloopSDK
from runloop_api_client.sdk.devbox import Devbox

from outgate.dataplane.netns import entered
from support.stage import LISTEN, Stage, open_stage, run

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

DOMAIN = "tunnel.runloop.test"


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    with open_stage(environment={"OUTGATE_TUNNEL_DOMAIN": DOMAIN}) as stage:
        yield stage


@pytest.fixture(scope="module")
def other_client(shared_stage: Stage) -> Iterator[RunloopSDK]:
    """A client of another account."""
    command = shared_stage.daemon.command("account", "create", "other", "--json")
    made = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    with RunloopSDK(bearer_token=made["api_key"], base_url=shared_stage.daemon.url) as client:
        yield client


def serve(devbox: Devbox) -> None:
    """Start the web server on the box's loopback, and wait until it listens."""
    devbox.cmd.exec_async("python3 /tmp/web_server.py 127.0.0.1 3000")
    assert (
        run(
            devbox,
            "for i in $(seq 100); do (echo > /dev/tcp/127.0.0.1/3000) 2>/dev/null && exit; sleep 0.1; done; exit 1",
        ).exit_code
        == 0
    )


def tunnel_name(devbox: Devbox, port: int = 3000) -> str:
    url = devbox.get_tunnel_url(port)
    assert url is not None
    # The client makes the URL out of the base URL's host, which this stage reaches by its address.
    key = url.removeprefix(f"https://{port}-").partition(".")[0]
    return f"{port}-{key}.{DOMAIN}"


def fetch(stage: Stage, name: str, path: str = "/", *arguments: str) -> subprocess.CompletedProcess[str]:
    """curl from the host, trusting the local authority alone."""
    command = curl_command(stage, name, path, "-w", "\n%{http_code}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def curl_command(stage: Stage, name: str, path: str, *arguments: str) -> list[str]:
    command = ["curl", "-s", "--max-time", "20", "--cacert", str(stage.daemon.state_dir / "tls/ca.pem")]
    return [*command, "--resolve", f"{name}:443:127.0.0.1", *arguments, f"https://{name}{path}"]


def code_of(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.rpartition("\n")[2]


def fetch_inside(devbox: Devbox, name: str, scheme: str = "https", *arguments: str) -> str:
    """The status that curl in the devbox sees; 000 without an answer."""
    words = " ".join(arguments)
    return run(devbox, f"curl -s -o /tmp/body --max-time 8 -w '%{{http_code}}' {words} {scheme}://{name}/").stdout


def gateway_of(devbox: Devbox) -> str:
    return run(devbox, "awk '/^nameserver/ {print $2; exit}' /etc/resolv.conf").stdout.strip()


def test_from_outside_by_the_name_that_the_client_makes(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy())
    serve(devbox)
    devbox.net.enable_tunnel()
    name = tunnel_name(devbox)
    answer = fetch(stage, name, "/a?b=1")
    assert code_of(answer) == "200"
    assert json.loads(answer.stdout.rpartition("\n")[0])["peer"] == "127.0.0.1"
    assert code_of(fetch(stage, name.replace("3000-", "3001-"))) == "503"
    with subprocess.Popen(curl_command(stage, name, "/events", "-N"), stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        assert stream.stdout.readline() == "data: 0\n", "the first event comes while the others are not there yet"
        assert code_of(fetch(stage, name, "/more-events")) == "200"
        assert stream.stdout.read() == "\ndata: 1\n\ndata: 2\n\n"
    size = 100 << 20
    sent = Path(stage.daemon.state_dir / f"bulk-{secrets.token_hex(4)}")
    with sent.open("wb") as file:
        file.truncate(size)
    posted = fetch(stage, name, "/up", "--data-binary", f"@{sent}", "-H", "Expect:")
    sent.unlink()
    assert json.loads(posted.stdout.rpartition("\n")[0])["count"] == size
    assert fetch(stage, name, f"/big/{size}", "-o", "/dev/null", "-w", "\n%{size_download}").stdout.endswith(
        f"\n{size}"
    )
    assert front_peak_mib(stage) < 200
    devbox.net.remove_tunnel()
    assert code_of(fetch(stage, name)) == "404"


def front_peak_mib(stage: Stage) -> int:
    """The most memory the front ever held."""
    children = Path(f"/proc/{stage.daemon.pid}/task/{stage.daemon.pid}/children").read_text().split()
    fronts = [pid for pid in children if b"front_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    status = Path(f"/proc/{fronts[0]}/status").read_text()
    assert "\nCapEff:\t0000000000000000\n" in status
    assert "\nUid:\t0" not in status
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def test_an_authenticated_tunnel_wants_its_token_also_inside(stage: Stage) -> None:
    devbox, asking = stage.devbox(stage.policy()), stage.devbox(stage.policy(allow_devbox_to_devbox=True))
    serve(devbox)
    token = devbox.net.enable_tunnel(auth_mode="authenticated").auth_token
    name, header = tunnel_name(devbox), f"X-Runloop-Tunnel-Authorization: Bearer {token}"
    assert code_of(fetch(stage, name)) == "401"
    assert code_of(fetch(stage, name, "/", "-H", header)) == "200"
    assert fetch_inside(asking, name) == "401"
    assert fetch_inside(asking, name, "https", f"-H '{header}'") == "200"


def test_the_flag_opens_the_own_accounts_tunnels_and_closes_them_live(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy())
    serve(devbox)
    devbox.net.enable_tunnel()
    name = tunnel_name(devbox)
    policy = stage.policy()
    asking = stage.devbox(policy)
    gateway = gateway_of(asking)
    assert fetch_inside(asking, name) == "000", "the name does not resolve"
    assert fetch_inside(asking, name, "http", f"--resolve {name}:80:{gateway}") == "403"
    assert "tunnel_not_allowed" in run(asking, "cat /tmp/body").stdout
    assert fetch_inside(asking, name, "https", f"--resolve {name}:443:{gateway}") == "000"

    policy.update(allow_devbox_to_devbox=True)
    assert fetch_inside(asking, name) == "200"
    assert fetch_inside(asking, name, "http") == "200"
    assert run(asking, f"getent ahostsv4 {name} | head -1 | cut -d' ' -f1").stdout.strip() == gateway

    holding = asking.cmd.exec_async(f"python3 /tmp/hold_tunnel.py {name}")
    assert run(asking, "for i in $(seq 100); do [ -e /tmp/held ] && exit; sleep 0.1; done; exit 1").exit_code == 0
    policy.update(allow_devbox_to_devbox=False)
    lines = holding.result(timeout=60).stdout().split()
    assert lines[0] == "101"
    assert lines[1] in {"ConnectionResetError", "SSLEOFError", "ended"}
    assert fetch_inside(asking, name) == "000"


def test_another_accounts_devbox_needs_the_name_in_its_policy(stage: Stage, other_client: RunloopSDK) -> None:
    devbox = stage.devbox(stage.policy())
    serve(devbox)
    devbox.net.enable_tunnel()
    name = tunnel_name(devbox)
    made: list[Any] = []
    try:
        flag = other_client.network_policy.create(name="flag", allow_devbox_to_devbox=True)
        everything = other_client.network_policy.create(name="all", allow_all=True)
        named = other_client.network_policy.create(name="named", allowed_hostnames=[f"*.{DOMAIN}"])
        for policy, expected in ((flag, "000"), (everything, "000"), (named, "200")):
            asking = other_client.devbox.create(launch_parameters={"network_policy_id": policy.id})
            made.append(asking)
            assert fetch_inside(asking, name) == expected, policy.id
            if policy is not named:
                resolve = f"--resolve {name}:80:{gateway_of(asking)}"
                assert fetch_inside(asking, name, "http", resolve) == "403"
                assert "tunnel_of_others" in run(asking, "cat /tmp/body").stdout
    finally:
        for one in made:
            one.shutdown()


def test_nothing_else_of_the_router_opens_and_no_box_reaches_another_by_address(stage: Stage) -> None:
    devbox, asking = stage.devbox(stage.policy(allow_all=True)), stage.devbox(stage.policy(allow_all=True))
    devbox.cmd.exec_async("python3 /tmp/web_server.py 0.0.0.0 3000")
    address = (
        run(devbox, "hostname -I 2>/dev/null || ip -4 -o addr show eth0 | awk '{print $4}'")
        .stdout.split()[0]
        .partition("/")[0]
    )
    gateway = gateway_of(asking)
    script = (
        "import socket,sys\n"
        "for place in sys.argv[1:]:\n"
        "    host, _, port = place.rpartition(':')\n"
        "    try:\n"
        "        socket.create_connection((host, int(port)), 2).close(); print(place, 'open')\n"
        "    except OSError as error:\n"
        "        print(place, type(error).__name__)\n"
    )
    ports = (22, 81, 442, 444, 8080, 15001, 3000)
    places = [f"{gateway}:{port}" for port in ports] + [f"{address}:{port}" for port in (80, 443, 3000)]
    tried = run(asking, f"cat > /tmp/t.py <<'END'\n{script}END\npython3 /tmp/t.py {' '.join(places)}").stdout
    assert len(tried.splitlines()) == len(places)
    assert "open" not in tried


def test_a_request_wakes_a_suspended_devbox_that_may_be_woken(stage: Stage) -> None:
    devbox = stage.devbox(
        stage.policy(), launch_commands=["(setsid python3 /tmp/web_server.py 127.0.0.1 3000 >/dev/null 2>&1 &) ; true"]
    )
    devbox.net.enable_tunnel(wake_on_http=True)
    name = tunnel_name(devbox)
    devbox.suspend()
    devbox.await_suspended()
    first = fetch(stage, name, "/", "-D", "-")
    assert code_of(first) == "503"
    assert "\nretry-after: 5" in first.stdout.lower()
    devbox.await_running()
    deadline_s = time.monotonic() + 20
    while code_of(fetch(stage, name)) != "200":
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def test_the_api_has_its_own_name_with_tls(stage: Stage) -> None:
    context = ssl.create_default_context(cafile=str(stage.daemon.state_dir / "tls/ca.pem"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        entered(stage.internet.namespaces.host),
        socket.create_connection(("127.0.0.1", 443), 5) as plain,
        context.wrap_socket(plain, server_hostname="api.runloop.test") as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"
    for version in ("--http1.1", "--http2"):
        assert code_of(fetch(stage, "api.runloop.test", "/healthz", version)) == "200"
    assert LISTEN in stage.daemon.url


def test_the_front_comes_back_with_its_tunnels(stage: Stage) -> None:
    devbox = stage.devbox(stage.policy())
    serve(devbox)
    devbox.net.enable_tunnel()
    name = tunnel_name(devbox)
    children = Path(f"/proc/{stage.daemon.pid}/task/{stage.daemon.pid}/children").read_text().split()
    (front,) = [pid for pid in children if b"front_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    subprocess.run(["kill", "-9", front], check=True)
    deadline_s = time.monotonic() + 20
    while code_of(fetch(stage, name)) != "200":
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
