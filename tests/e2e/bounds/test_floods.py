"""One devbox does its worst; another one works beside it, and no process of the server grows beyond its bound.

Nothing here is judged by speed: of the neighbour's requests each is made once and has to be answered before an ordinary
program would give up.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from runloop_api_client.sdk.devbox import Devbox

from support.server_processes import Part, find_process
from support.stage import Stage, finish, run
from support.world import ALLOWED, ALSO, BELOW

RESIDENT_MIB_MAX = {Part.GATE: 384, Part.AGENT: 384, Part.API: 384}
"""As docs/limits.md says it."""
LOG_BYTES_MAX = 256 * 1024
"""What one flood may add to the log: a hundred lines of a kind a minute (docs/limits.md), and some kinds."""
QUIET_MAX = 300
"""Descriptors of a gate with little to do: sockets and pipes in stock, listeners, and what the neighbour uses."""
ROUNDS = 12
ROUNDS_LONG = 150
ZONE, KNOWN_ZONE = "flood.example.com", "wild.example.com"
KINDS = (
    "dns by UDP",
    "dns by TCP",
    "silent flows",
    "slow hellos",
    "giant hellos",
    "slow heads",
    "endless heads",
    "futile flows",
)

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True)
class Pair:
    """A devbox that floods and its neighbour, under policies of their own."""

    stage: Stage
    flooding: Devbox
    neighbour: Devbox

    @contextmanager
    def flood(self, kind: str) -> Iterator[None]:
        """While the block runs the one floods, in full swing."""
        run(self.flooding, "rm -f /tmp/stop-flood /tmp/flood-on")
        spec = {"kind": kind, "address": ALLOWED.address4, "zone": ZONE, "denied": "exfil.example.net"}
        execution = self.flooding.cmd.exec_async(f"python3 /tmp/flood.py {shlex.quote(json.dumps(spec))}")
        try:
            begun = run(
                self.flooding, "for i in $(seq 600); do [ -e /tmp/flood-on ] && exit 0; sleep 0.05; done; exit 1"
            )
            assert begun.exit_code == 0, "the flood did not begin"
            yield
        finally:
            run(self.flooding, "touch /tmp/stop-flood")
            assert finish(execution)["attempts"] > 200

    def work(self, rounds: int) -> None:
        """The neighbour's requests. Fails when one of them is not answered."""
        names = [f"a{number}.{KNOWN_ZONE}" for number in range(10)]
        for name in names:
            self.stage.internet.set_records(name, addresses=(BELOW.address4,))
        spec = {"rounds": rounds, "names": names, "address": ALSO.address4, "name": ALSO.name}
        ran = run(self.neighbour, f"python3 /tmp/steady.py {shlex.quote(json.dumps(spec))}")
        assert ran.exit_code == 0, ran
        for what, took_s in json.loads(ran.stdout).items():
            print(what, "at most", max(one or 0 for one in took_s))
            assert None not in took_s, (what, took_s, ran.stderr)


@pytest.fixture(scope="module")
def pair(shared_stage: Stage) -> Iterator[Pair]:
    stage = shared_stage
    stage.internet.set_records(f"*.{ZONE}", addresses=(BELOW.address4,))
    flooding = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED.name, f"*.{ZONE}"]))
    neighbour = stage.devbox(stage.policy(allowed_hostnames=[ALSO.name, f"*.{KNOWN_ZONE}"]))
    for devbox, name in ((flooding, ALLOWED.name), (neighbour, ALSO.name)):
        assert run(devbox, f"getent ahosts {name}").exit_code == 0
    made = Pair(stage, flooding, neighbour)
    made.work(ROUNDS)
    yield made
    stage.clear()


def resident_mib(pid: int) -> int:
    """The most memory that the process has had resident since it started (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024


@contextmanager
def bounded(stage: Stage) -> Iterator[None]:
    """What happens in the block kills no process, makes none too large, and does not fill the log."""
    processes = {part: find_process(stage.daemon, part) for part in Part}
    log_bytes = stage.daemon.log_file.stat().st_size
    yield
    assert {part: find_process(stage.daemon, part) for part in Part} == processes, "a process ended"
    resident = {part: resident_mib(pid) for part, pid in processes.items()}
    print(resident)
    assert [part.name for part in Part if resident[part] > RESIDENT_MIB_MAX[part]] == [], resident
    assert stage.daemon.log_file.stat().st_size - log_bytes <= LOG_BYTES_MAX, stage.daemon.log_tail(5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_costs_the_neighbour_nothing_and_the_server_little(pair: Pair, kind: str) -> None:
    with bounded(pair.stage), pair.flood(kind):
        pair.work(ROUNDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_long_flood_changes_nothing_of_that(pair: Pair, kind: str) -> None:
    with bounded(pair.stage), pair.flood(kind):
        pair.work(ROUNDS_LONG)


def test_what_a_flood_took_is_given_back(pair: Pair) -> None:
    until(lambda: descriptors(pair.stage) < QUIET_MAX, "descriptors of earlier floods stay taken")
    with pair.flood("slow hellos"):
        until(lambda: descriptors(pair.stage) > QUIET_MAX, "the flood takes no descriptors")
    until(lambda: descriptors(pair.stage) < QUIET_MAX, "descriptors stay taken")
    pair.work(ROUNDS)


def descriptors(stage: Stage) -> int:
    """How many the gate has open."""
    return len(list(Path(f"/proc/{find_process(stage.daemon, Part.GATE)}/fd").iterdir()))


def until(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait for ``condition``; fail with ``otherwise``."""
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.1)
