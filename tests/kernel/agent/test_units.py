"""The server within what its systemd units leave to it: capabilities, system calls, address families, notices."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from runloop_api_client import RunloopSDK

from outgate import clock
from outgate.cli.demo.daemon import Daemon
from outgate.cli.demo.leftovers import state_directory
from outgate.dataplane.netns import entered
from support import as_unit
from support.internet import Internet
from support.stage import Stage, run

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

UNITS = Path(__file__).parents[3] / "ops" / "systemd"
LISTEN = "127.0.0.1:18085"
WATCHDOG_S = 4.0
WAIT_S = 120.0


class Manager:
    """The service manager's side of sd_notify(3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._bound.bind(str(path))
        path.chmod(0o777)
        self.heard: list[str] = []

    def close(self) -> None:
        self._bound.close()

    def forget(self) -> None:
        """Nothing that was said so far."""
        self.heard_by_now()
        self.heard.clear()

    def heard_by_now(self) -> list[str]:
        """Everything that was said and not waited for, and is not forgotten."""
        while select.select([self._bound], [], [], 0)[0]:
            self.heard.append(self._bound.recv(4096).decode())
        return self.heard

    def await_word(self, word: str) -> str:
        """The next notice with ``word``; whatever comes before it is kept in ``heard``."""
        deadline_s = clock.monotonic_s() + WAIT_S
        while (left_s := deadline_s - clock.monotonic_s()) > 0:
            if select.select([self._bound], [], [], left_s)[0]:
                notice = self._bound.recv(4096).decode()
                self.heard.append(notice)
                if word in notice.splitlines():
                    return notice
        raise AssertionError(f"no {word} came; heard {self.heard}")


@dataclass(frozen=True, slots=True)
class Place:
    """A little internet, a state directory, and somebody who is told."""

    internet: Internet
    state_dir: Path
    manager: Manager

    def environment(self) -> dict[str, str]:
        notified = {"NOTIFY_SOCKET": str(self.manager.path), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        return {"OUTGATE_UPSTREAM_DNS": self.internet.resolver, **notified}

    @contextmanager
    def serving(self) -> Iterator[Daemon]:
        """``outgate serve`` within its unit."""
        namespace = self.internet.namespaces.host_path
        daemon = Daemon(self.state_dir, namespace=namespace, listen=LISTEN, environment=self.environment())
        daemon._prefix += [sys.executable, as_unit.__file__, str(UNITS / "outgate.service")]
        with daemon:
            yield daemon

    @contextmanager
    def running(self, command: str) -> Iterator[None]:
        """``outgate api`` or ``outgate agent`` within its unit, until it is told to end."""
        words = [sys.executable, as_unit.__file__, str(UNITS / f"outgate-{command}.service")]
        words += [sys.executable, "-m", "outgate.cli.main", command]
        place = {"OUTGATE_STATE_DIR": str(self.state_dir), "OUTGATE_LISTEN": LISTEN}
        with (
            self.state_dir.with_name(f"{command}.log").open("ab") as log,
            subprocess.Popen(
                self.internet.command(*words),
                env={**os.environ, **place, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ) as process,
        ):
            try:
                yield
            except BaseException:
                process.kill()
                raise
            process.terminate()
            assert process.wait(WAIT_S) == 0


@pytest.fixture
def place() -> Iterator[Place]:
    # Not in pytest's own directory: the api tells its manager as another user.
    with state_directory() as state_dir, Internet() as internet:
        manager = Manager(state_dir.with_name("notify"))
        yield Place(internet, state_dir, manager)
        manager.close()


def test_the_whole_server_lives_within_its_unit_and_devboxes_outlive_it(place: Place) -> None:
    with place.serving() as daemon, entered(place.internet.namespaces.host):
        assert "enforcing" in place.manager.await_word("READY=1")
        with RunloopSDK(bearer_token=daemon.api_key, base_url=daemon.url) as client:
            stage = Stage(place.internet, daemon, client)
            devbox = stage.devbox(stage.policy(allowed_hostnames=["somewhere.example.org"]), as_root=True)
            # What the unit's filters could have taken from a devbox.
            sockets = "import socket; socket.socket(); socket.socket(socket.AF_INET6); socket.socket(socket.AF_UNIX)"
            used = f"touch /tmp/x && chmod u+s /tmp/x && python3 -c '{sockets}' && echo fine"
            assert run(devbox, used).stdout == "fine\n"
            daemon.stop()
            place.manager.await_word("STOPPING=1")
            daemon.start()
            assert run(devbox, "test -u /tmp/x && echo still here").stdout == "still here\n"
            stage.clear()


def test_the_watchdog_hears_nothing_while_a_part_hangs(place: Place) -> None:
    """What systemd does then is to start anew; here it is enough that nobody says that all is well."""
    with place.serving() as daemon:
        place.manager.await_word("READY=1")
        place.manager.await_word("WATCHDOG=1")
        agent = _child(daemon.pid, b"outgate.server.agent_process")
        os.kill(agent, signal.SIGSTOP)
        try:
            _await_line(daemon, '"not_well"')
            place.manager.forget()
            _await_line(daemon, '"not_well"')
            assert place.manager.heard_by_now() == []
        finally:
            os.kill(agent, signal.SIGCONT)
        place.manager.await_word("WATCHDOG=1")


def test_api_and_agent_live_within_theirs(place: Place) -> None:
    try:
        for _ in range(2):  # the second time on what the first left
            with place.running("api"):
                assert "the API listens" in place.manager.await_word("READY=1")
                with place.running("agent"):
                    assert "filtering" in place.manager.await_word("READY=1")
                    _await_ready(place.internet)
                    place.manager.await_word("WATCHDOG=1")
                place.manager.await_word("STOPPING=1")
    finally:
        Daemon(place.state_dir, namespace=place.internet.namespaces.host_path).teardown()


def _await_ready(internet: Internet) -> None:
    deadline_s = clock.monotonic_s() + WAIT_S
    with entered(internet.namespaces.host), httpx.Client(trust_env=False) as client:
        while client.get(f"http://{LISTEN}/readyz").status_code != httpx.codes.OK:
            assert clock.monotonic_s() < deadline_s
            time.sleep(0.05)


def _child(pid: int, module: bytes) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next(int(child) for child in children if module in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"))


def _await_line(daemon: Daemon, word: str) -> None:
    """Wait for one more line with ``word`` in the log than there are now."""
    before = daemon.log_file.read_text("utf-8").count(word)
    deadline_s = clock.monotonic_s() + WAIT_S
    while daemon.log_file.read_text("utf-8").count(word) <= before:
        assert clock.monotonic_s() < deadline_s, daemon.log_tail()
        time.sleep(0.05)
