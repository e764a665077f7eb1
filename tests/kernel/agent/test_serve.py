"""``outgate serve`` as a person starts it: what it prints, what it refuses, what outlives it and what does not."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from outgate.dataplane.netns import entered, list_namespaces
from outgate.settings import Settings, load_settings
from support.internet import Internet

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

LISTEN = "127.0.0.1:18081"
URL = f"http://{LISTEN}"


@dataclass
class Place:
    """A little internet, a state directory, and the servers that were started on it."""

    internet: Internet
    settings: Settings
    started: list["Server"] = field(default_factory=list)

    def serve(self, *arguments: str, environment: Mapping[str, str] | None = None) -> "Server":
        server = Server(self, arguments, environment or {})
        self.started.append(server)
        return server

    def outgate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "outgate.cli.main", *arguments, "--state-dir", str(self.settings.state_dir)]
        return subprocess.run(self.internet.command(*command), capture_output=True, text=True, timeout=90, check=False)

    def namespaces(self) -> tuple[str, ...]:
        return list_namespaces(f"outgate-{self.settings.instance_id}")

    def key(self) -> str:
        return self.settings.api_key_file.read_text().strip()

    def api(self, method: str, path: str, **body: object) -> httpx.Response:
        with entered(self.internet.namespaces.host):
            return httpx.request(
                method, URL + path, json=body or None, headers={"authorization": f"Bearer {self.key()}"}, timeout=30
            )

    def is_ready(self) -> bool:
        try:
            return self.api("GET", "/readyz").status_code == httpx.codes.OK
        except (httpx.HTTPError, FileNotFoundError):
            return False

    def boot(self) -> str:
        """A running devbox."""
        made = self.api("POST", "/v1/devboxes/create_and_await_running", name="box").json()
        self.until(lambda: self.api("GET", f"/v1/devboxes/{made['id']}").json()["status"] == "running")
        return str(made["id"])

    def execute(self, devbox_id: str, command: str) -> str:
        body = {"command": command, "command_id": os.urandom(8).hex()}
        answer = self.api("POST", f"/v1/devboxes/{devbox_id}/execute", **body).json()
        return str(answer.get("stdout", answer))

    @staticmethod
    def until(condition: "object", timeout_s: float = 120) -> None:
        assert callable(condition)
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


class Server:
    """One ``outgate serve``, with its output in files."""

    def __init__(self, place: Place, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "outgate.cli.main", "serve", "--listen", LISTEN]
        number = len(place.started)
        self._out = place.settings.state_dir.with_name(f"out-{number}")
        self._log = place.settings.state_dir.with_name(f"log-{number}")
        with self._out.open("wb") as out, self._log.open("wb") as log:
            self.process = subprocess.Popen(
                place.internet.command(*command, "--state-dir", str(place.settings.state_dir), *arguments),
                env={**os.environ, "OUTGATE_UPSTREAM_DNS": place.internet.resolver, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )

    @property
    def lines(self) -> list[str]:
        return self._out.read_text("utf-8").splitlines()

    @property
    def log(self) -> list[str]:
        return self._log.read_text("utf-8", "replace").splitlines()

    def await_ready(self) -> "Server":
        Place.until(lambda: any("ready" in line for line in self.lines) or self.process.poll() is not None)
        assert self.process.poll() is None, "\n".join(self.log[-20:])
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def child(self, module: str) -> int:
        """The process id of the api or the agent."""
        found = self.find_child(module)
        assert found is not None, f"{module} does not run"
        return found

    def find_child(self, module: str) -> int | None:
        """As :meth:`child`; None when it does not run."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in path.read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        return None


@pytest.fixture
def place() -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="outgate-serve-"))
    folder.chmod(0o711)
    with Internet() as internet:
        made = Place(internet, load_settings(state_dir=folder / "state"))
        try:
            yield made
        finally:
            for server in made.started:
                if server.process.poll() is None:
                    server.process.kill()
                    server.process.wait()
            done = made.outgate("teardown")
            shutil.rmtree(folder, ignore_errors=True)
            assert done.returncode == 0, done.stderr
    assert made.namespaces() == ()
    assert not made.settings.run_dir.exists()


def test_it_prints_the_key_and_one_ready_line_and_later_only_the_line(place: Place) -> None:
    first = place.serve().await_ready()
    assert first.lines == [f"outgate api key: {place.key()}", f"outgate ready on {URL}"]
    assert place.api("GET", "/v1/network-policies").status_code == 200
    assert first.end() == 0
    again = place.serve().await_ready()
    assert again.end() == 0
    assert again.lines == [f"outgate ready on {URL}"]
    assert not any(place.key() in line for line in (*first.log, *again.log))


def test_nobody_but_root_and_the_api_reaches_the_sockets_and_files(place: Place) -> None:
    server = place.serve().await_ready()
    settings = place.settings
    api_user = next(
        int(line.split()[1])
        for line in Path(f"/proc/{server.child('api_process')}/status").read_text().splitlines()
        if line.startswith("Uid:")
    )
    assert api_user != 0
    modes = {path: (path.stat().st_mode & 0o777, path.stat().st_uid) for path in settings.state_dir.iterdir()}
    assert modes.pop(settings.api_dir) == (0o700, api_user)
    assert {mode for mode, _ in modes.values()} <= {0o700, 0o600}
    assert {owner for _, owner in modes.values()} == {0}
    assert settings.api_socket.stat().st_mode & 0o777 == 0o600
    agent_socket = settings.agent_socket.stat()
    assert (agent_socket.st_mode & 0o777, agent_socket.st_uid) == (0o600, api_user)
    assert not {path for path in settings.api_dir.iterdir() if path.stat().st_uid != api_user}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OUTGATE_DEFAULT_POLICY": "none"}, "OUTGATE_DEFAULT_POLICY is 'none'; write allow_all or deny_all."),
        ({"OUTGATE_INTERNAL_ZONES": "*.corp"}, "OUTGATE_INTERNAL_ZONES: "),
        ({"OUTGATE_RUNTIME": "runsc"}, "runsc is not installed; install the package runsc."),
        ({"OUTGATE_API_USER": "root"}, "OUTGATE_API_USER is 'root', which is root; name an unprivileged user."),
        ({"OUTGATE_DATABASE_URL": "mysql://x"}, "OUTGATE_DATABASE_URL names 'mysql'"),
    ],
)
def test_it_refuses_to_start_and_says_why(place: Place, environment: dict[str, str], message: str) -> None:
    server = place.serve(environment=environment)
    assert server.process.wait(timeout=60) == 1
    Place.until(lambda: message in " ".join(server.log).replace("\n", " "))
    assert not [line for line in server.lines if "ready" in line]


def test_a_second_server_on_the_same_state_is_refused(place: Place) -> None:
    place.serve().await_ready()
    second = place.serve()
    assert second.process.wait(timeout=60) == 1
    Place.until(lambda: any("runs already on" in line for line in second.log))
    refused = place.outgate("teardown")
    assert refused.returncode == 1
    assert "A server runs already" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_devboxes_outlive_the_server_and_are_adopted(place: Place, number: signal.Signals) -> None:
    server = place.serve().await_ready()
    devbox_id = place.boot()
    began = place.execute(devbox_id, "cat /proc/1/stat | cut -d' ' -f22")
    namespaces = place.namespaces()
    assert len(namespaces) == 2
    children = [server.child("api_process"), server.child("agent_process")]
    server.end(number)
    Place.until(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()], 5)
    assert place.namespaces() == namespaces
    place.serve().await_ready()
    assert place.execute(devbox_id, "cat /proc/1/stat | cut -d' ' -f22") == began


def test_ephemeral_leaves_nothing_and_the_api_hears_of_it_at_the_next_start(place: Place) -> None:
    server = place.serve("--ephemeral").await_ready()
    devbox_id = place.boot()
    assert server.end() == 0
    assert place.namespaces() == ()
    with entered(place.internet.namespaces.host):
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert "outgate" not in tables
    place.serve().await_ready()
    place.until(lambda: place.api("GET", f"/v1/devboxes/{devbox_id}").json()["status"] == "shutdown")
    assert len(place.namespaces()) == 1


def test_clients_wait_and_are_not_refused_while_the_api_is_started_again(place: Place) -> None:
    server = place.serve().await_ready()
    devbox_id = place.boot()
    for _ in range(3):
        os.kill(server.child("api_process"), signal.SIGKILL)
        time.sleep(0.01)
        assert place.api("GET", f"/v1/devboxes/{devbox_id}").json()["status"] == "running"
        assert place.execute(devbox_id, "echo still here") == "still here\n"
    assert [line for line in server.lines if "ready" in line] == [f"outgate ready on {URL}"]


def test_an_agent_that_is_killed_comes_back_by_itself(place: Place) -> None:
    server = place.serve().await_ready()
    devbox_id = place.boot()
    policy = place.api("POST", "/v1/network-policies", name="p").json()
    killed = server.child("agent_process")
    os.kill(killed, signal.SIGKILL)
    # Readiness is told late and its absence may be short: what shows the new agent is its process, and that it works.
    place.until(lambda: server.find_child("agent_process") not in (None, killed))
    place.until(lambda: place.execute(devbox_id, "echo back") == "back\n")
    assert place.api("POST", f"/v1/network-policies/{policy['id']}", allow_all=True).status_code == 200


def test_api_and_agent_may_be_started_apart(place: Place) -> None:
    environment = {**os.environ, "OUTGATE_UPSTREAM_DNS": place.internet.resolver}
    common = ("--state-dir", str(place.settings.state_dir))
    commands = [("api", "--listen", LISTEN, *common), ("agent", *common)]
    processes = [
        subprocess.Popen(
            place.internet.command(sys.executable, "-m", "outgate.cli.main", *arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for arguments in commands
    ]
    try:
        place.until(place.is_ready)
        assert place.execute(place.boot(), "echo apart") == "apart\n"
    finally:
        for process in processes:
            process.terminate()
        assert [process.wait(30) for process in processes] == [0, 0]


def test_keys_are_made_and_revoked_while_it_serves_without_leaving_files_of_roots(place: Place) -> None:
    place.serve().await_ready()
    made = json.loads(place.outgate("key", "create", "--name", "second", "--json").stdout)
    with entered(place.internet.namespaces.host):
        headers = {"authorization": f"Bearer {made['api_key']}"}
        assert httpx.get(URL + "/v1/accounts/me", headers=headers).json()["id"] == made["account_id"]
        assert place.outgate("key", "revoke", made["key_id"]).returncode == 0
        assert httpx.get(URL + "/v1/accounts/me", headers=headers).status_code == 401
    assert 0 not in {path.stat().st_uid for path in place.settings.api_dir.iterdir()}


def test_two_installations_live_side_by_side(place: Place) -> None:
    place.serve().await_ready()
    devbox_id = place.boot()
    folder = Path(tempfile.mkdtemp(prefix="outgate-other-"))
    folder.chmod(0o711)
    other = Place(place.internet, load_settings(state_dir=folder / "state"))
    try:
        server = other.serve("--ephemeral", "--listen", "127.0.0.1:18082")
        server.await_ready()
        assert server.end() == 0
    finally:
        other.outgate("teardown")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(other.settings.run_dir, ignore_errors=True)
    assert place.execute(devbox_id, "echo undisturbed") == "undisturbed\n"
    assert place.api("GET", "/readyz").json()["warnings"] == []
