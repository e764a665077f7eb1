"""``outgate serve`` as a real process in the little internet, driven by the official Python client."""

import json
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runloop_api_client import RunloopSDK
from runloop_api_client.sdk.devbox import Devbox
from runloop_api_client.sdk.execution import Execution
from runloop_api_client.sdk.network_policy import NetworkPolicy
from runloop_api_client.sdk.snapshot import Snapshot
from runloop_api_client.types import BlueprintView

from outgate import clock
from outgate.cli.demo.daemon import Daemon
from outgate.cli.demo.internet import Internet
from outgate.cli.demo.leftovers import clear_stale, state_directory
from outgate.dataplane.netns import entered

if TYPE_CHECKING:
    from runloop_api_client.types.shared_params.launch_parameters import LaunchParameters

LISTEN = "127.0.0.1:18080"
_PROGRAMS = Path(__file__).parent / "in_devbox"
EXEC_S_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Ran:
    """One command's end."""

    exit_code: int
    stdout: str
    stderr: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt of ``in_devbox/attempts.py``."""

    began_s: float
    ended_s: float
    outcome: str
    detail: str

    @property
    def is_answered(self) -> bool:
        return self.outcome == "answer"

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass(slots=True)
class Stage:
    """The internet, the server and a client. Everything a test makes through it is taken away after the test."""

    internet: Internet
    daemon: Daemon
    client: RunloopSDK
    _policies: list[NetworkPolicy] = field(default_factory=list)
    _devboxes: list[Devbox] = field(default_factory=list)
    _blueprints: list[str] = field(default_factory=list)

    def policy(self, **egress: Any) -> NetworkPolicy:
        """A policy of a name of its own."""
        made = self.client.network_policy.create(name=f"test-{secrets.token_hex(4)}", **egress)
        self._policies.append(made)
        return made

    def devbox(
        self,
        policy: NetworkPolicy | None,
        *,
        launch_commands: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        snapshot: Snapshot | None = None,
        as_root: bool = False,
    ) -> Devbox:
        """A running devbox under ``policy``, from ``snapshot`` if there is one, with the test programs in /tmp."""
        launch: LaunchParameters = {"launch_commands": list(launch_commands)}
        if as_root:
            launch["user_parameters"] = {"username": "root", "uid": 0}
        if policy is not None:
            launch["network_policy_id"] = policy.id
        origin: dict[str, Any] = {} if snapshot is None else {"snapshot_id": snapshot.id}
        made = self.client.devbox.create(
            launch_parameters=launch, environment_variables=dict(environment or {}), **origin
        )
        self._devboxes.append(made)
        programs = [
            f"cat > /tmp/{program.name} <<'END-OF-PROGRAM'\n{program.read_text('utf-8')}\nEND-OF-PROGRAM"
            for program in _PROGRAMS.glob("*.py")
        ]
        ran = run(made, "\n".join(programs))
        assert ran.exit_code == 0, ran
        return made

    def blueprint(self, policy: NetworkPolicy | None = None, **body: Any) -> BlueprintView:
        """A blueprint whose build, under ``policy``, has just begun."""
        if policy is not None:
            body["network_policy_id"] = policy.id
        made = self.client.api.blueprints.create(name=f"test-{secrets.token_hex(4)}", **body)
        self._blueprints.append(made.id)
        return made

    def await_built(self, blueprint_id: str, *, status: str = "build_complete") -> tuple[BlueprintView, list[str]]:
        """The blueprint when its build has ended, and what it said."""
        deadline_s = clock.monotonic_s() + EXEC_S_MAX
        while True:
            view = self.client.api.blueprints.retrieve(blueprint_id)
            if view.status in ("build_complete", "failed") or clock.monotonic_s() > deadline_s:
                said = [line.message for line in self.client.api.blueprints.logs(blueprint_id).logs]
                assert view.status == status, (view, said)
                return view, said
            time.sleep(0.1)

    def devbox_from(self, blueprint_id: str, policy: NetworkPolicy | None = None) -> Devbox:
        """A running devbox from a blueprint, under ``policy`` if it is to have its own."""
        launch: LaunchParameters = {} if policy is None else {"network_policy_id": policy.id}
        made = self.client.devbox.create_from_blueprint_id(blueprint_id, launch_parameters=launch)
        self._devboxes.append(made)
        return made

    def clear(self) -> None:
        """Shut down the devboxes, delete the blueprints and then the policies that the test made."""
        while self._devboxes:
            self._devboxes.pop().shutdown()
        while self._blueprints:
            self.client.api.blueprints.delete(self._blueprints.pop())
        while self._policies:
            self._policies.pop().delete()


def run(devbox: Devbox, command: str) -> Ran:
    """Run ``command`` in the devbox to its end."""
    began_s = clock.monotonic_s()
    result = devbox.cmd.exec(command, timeout=EXEC_S_MAX)
    code = -1 if result.exit_code is None else result.exit_code
    return Ran(code, result.stdout(), result.stderr(), clock.monotonic_s() - began_s)


def attempt(devbox: Devbox, *specs: Mapping[str, object]) -> list[Tried]:
    """Try each of ``specs`` (see in_devbox/attempts.py) in the devbox, one after the other."""
    ran = run(devbox, f"python3 /tmp/attempts.py {shlex.quote(json.dumps(specs))}")
    assert ran.exit_code == 0, ran
    return [Tried(**result) for result in json.loads(ran.stdout)]


def start(devbox: Devbox, program: str, specs: Sequence[Mapping[str, object]]) -> Execution:
    """Start ``program`` of tests/support/in_devbox with ``specs`` as its argument."""
    return devbox.cmd.exec_async(f"python3 /tmp/{program}.py {shlex.quote(json.dumps(specs))}")


def finish(execution: Execution) -> Any:
    """What a started program printed at its end, as JSON."""
    result = execution.result(timeout=EXEC_S_MAX)
    assert result.exit_code == 0, result.stdout() + result.stderr()
    return json.loads(result.stdout())


@contextmanager
def open_stage(*, environment: Mapping[str, str] | None = None, ipv6: bool = True) -> Iterator[Stage]:
    """A stage; the calling thread is in the host namespace meanwhile."""
    clear_stale()
    with state_directory() as state_dir, Internet(ipv6=ipv6) as internet:
        daemon = Daemon(
            state_dir,
            namespace=internet.namespaces.host_path,
            listen=LISTEN,
            environment={"OUTGATE_UPSTREAM_DNS": internet.resolver, **(environment or {})},
        )
        with (
            daemon,
            entered(internet.namespaces.host),
            RunloopSDK(bearer_token=daemon.api_key, base_url=daemon.url) as client,
        ):
            yield Stage(internet, daemon, client)
