"""SIGKILL of each process, at any moment: nothing opens, kernel flows go on, everything converges by itself."""

import os
import signal
import time
from pathlib import Path

import pytest

from support.stage import Stage, attempt, finish, run, start
from support.world import ALLOWED, ALSO, DENIED, IN_NETWORK_A, IN_NO_NETWORK, NETWORK_A

CONVERGED_S_MAX = 30.0

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def _descendants(pid: int) -> dict[int, str]:
    """Process ids below ``pid``, with their command lines."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text("ascii", "replace")
        except OSError:
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode() for child in below - {pid}}


def _find(stage: Stage, part: str) -> int:
    """The process of ``outgate serve`` whose command line names ``part``."""
    deadline_s = time.monotonic() + CONVERGED_S_MAX
    while time.monotonic() < deadline_s:
        found = [pid for pid, command in _descendants(stage.daemon.pid).items() if part in command]
        if found:
            return min(found)
        time.sleep(0.05)
    raise AssertionError(f"no {part} among {_descendants(stage.daemon.pid)}")


def _await_enforcing(stage: Stage, devbox_id: str) -> None:
    """Wait until updates are enforced again: a policy change is in force when answered."""
    deadline_s = time.monotonic() + CONVERGED_S_MAX
    devbox = stage.client.devbox.from_id(devbox_id)
    while time.monotonic() < deadline_s:
        lookup, tls = attempt(
            devbox,
            {"kind": "lookup", "name": ALLOWED.name},
            {"kind": "tls", "address": ALLOWED.address4, "port": 443, "name": ALLOWED.name},
        )
        if lookup.is_answered and tls.is_answered:
            return
        time.sleep(0.1)
    raise AssertionError("name-bound flows did not come back")


@pytest.mark.parametrize("part", ["gate", "agent", "api"])
def test_killing_a_process_opens_nothing_and_heals(stage: Stage, part: str) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name], allowed_cidrs=[{"cidr": NETWORK_A}])
    devbox = stage.devbox(policy)
    attempt(devbox, {"kind": "lookup", "name": ALLOWED.name})
    since_s = stage.internet.now_s()
    kernel_flows = start(devbox, "flows", [{"address": IN_NETWORK_A, "port": 7, "count": 20, "talks": True}])
    traffic = start(
        devbox,
        "traffic",
        [
            {"kind": "tls", "name": ALLOWED.name},
            {"kind": "tls", "name": DENIED.name},
            {"kind": "tls", "name": DENIED.name, "address": DENIED.address4},
            {"kind": "tls", "name": DENIED.name, "address": ALLOWED.address4},
            {"kind": "raw", "address": IN_NO_NETWORK, "port": 7},
        ],
    )
    opened = run(devbox, "for i in $(seq 200); do [ -e /tmp/flows-open ] && exit 0; sleep 0.05; done; exit 1")
    assert opened.exit_code == 0
    for pause_s in (0.0, 0.3, 1.0):
        os.kill(_find(stage, part), signal.SIGKILL)
        time.sleep(pause_s)
    _await_answer(stage)
    _await_enforcing(stage, devbox.id)
    run(devbox, "touch /tmp/stop-traffic /tmp/flows-check")
    assert finish(kernel_flows)[0]["alive"] == 20, "flows that the kernel granted go on"
    result = finish(traffic)
    assert result["answers"][1:] == [0, 0, 0, 0], result
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED.address4)
    assert not journal.reached(IN_NO_NETWORK)
    assert DENIED.name not in {query.name for query in journal.queries}
    policy.update(allowed_hostnames=[ALSO.name])
    gone, found = attempt(
        devbox,
        {"kind": "tls", "address": ALLOWED.address4, "port": 443, "name": ALLOWED.name},
        {"kind": "lookup", "name": ALSO.name},
    )
    assert not gone.is_answered
    assert found.is_answered


def _await_answer(stage: Stage) -> None:
    """Wait until the API answers; the client itself retries a refused connection for some seconds."""
    deadline_s = time.monotonic() + CONVERGED_S_MAX
    while True:
        try:
            stage.client.network_policy.list(limit=1)
        except Exception:
            if time.monotonic() > deadline_s:
                raise
        else:
            return


def test_a_dead_server_leaves_devboxes_filtered_and_the_next_one_adopts_them(stage: Stage) -> None:
    policy = stage.policy(allowed_hostnames=[ALLOWED.name], allowed_cidrs=[{"cidr": NETWORK_A}])
    devbox = stage.devbox(policy)
    attempt(devbox, {"kind": "lookup", "name": ALLOWED.name})
    since_s = stage.internet.now_s()
    flows = start(devbox, "flows", [{"address": IN_NETWORK_A, "port": 7, "count": 10, "talks": True}])
    traffic = start(
        devbox,
        "traffic",
        [
            {"kind": "raw", "address": IN_NETWORK_A, "port": 7},
            {"kind": "tls", "name": ALLOWED.name, "address": ALLOWED.address4},
            {"kind": "tls", "name": DENIED.name, "address": DENIED.address4},
            {"kind": "raw", "address": IN_NO_NETWORK, "port": 7},
        ],
    )
    opened = run(devbox, "for i in $(seq 200); do [ -e /tmp/flows-open ] && exit 0; sleep 0.05; done; exit 1")
    assert opened.exit_code == 0
    stage.daemon.kill()
    dead_s = stage.internet.now_s()
    time.sleep(1.5)
    journal = stage.internet.journal(since_s=dead_s + 0.2)
    assert [c for c in journal.connections if c.address == IN_NETWORK_A], "new kernel flows go on without any process"
    assert not [c for c in journal.connections if c.address == ALLOWED.address4], "name-bound flows fail closed"
    stage.daemon.start()
    _await_enforcing(stage, devbox.id)
    run(devbox, "touch /tmp/stop-traffic /tmp/flows-check")
    assert finish(flows)[0]["alive"] == 10
    assert finish(traffic)["answers"][2:] == [0, 0]
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED.address4)
    assert not journal.reached(IN_NO_NETWORK)
