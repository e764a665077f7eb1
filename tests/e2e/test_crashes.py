"""SIGKILL of each process, at any moment: nothing opens, kernel flows go on, everything converges by itself."""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from runloop_api_client import APIError
from runloop_api_client.sdk.devbox import Devbox
from runloop_api_client.sdk.network_policy import NetworkPolicy

from support.server_processes import Part, find_process
from support.stage import Stage, attempt, finish, run, start
from support.world import ALLOWED, ALSO, DENIED, IN_NETWORK_A, IN_NO_NETWORK, NETWORK_A

CONVERGED_S_MAX = 90.0

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def _await_enforcing(stage: Stage, devbox: Devbox) -> None:
    """Wait until the API answers, commands run in the devbox, and new name-bound flows pass again."""
    deadline_s = time.monotonic() + CONVERGED_S_MAX
    while time.monotonic() < deadline_s:
        try:
            lookup, tls = attempt(
                devbox,
                {"kind": "lookup", "name": ALLOWED.name},
                {"kind": "tls", "address": ALLOWED.address4, "port": 443, "name": ALLOWED.name},
            )
        except APIError:
            continue  # the client has retried by itself for some seconds
        if lookup.is_answered and tls.is_answered:
            return
        time.sleep(0.1)
    raise AssertionError("name-bound flows did not come back")


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline_s = time.monotonic() + CONVERGED_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s, otherwise
        time.sleep(0.05)


def _await_connections(stage: Stage, since_s: float, count: int) -> float:
    """Until so many new kernel flows have arrived since then, with no process alive; when the last of them did."""

    def arrived() -> list[float]:
        journal = stage.internet.journal(since_s=since_s, address=IN_NETWORK_A)
        return sorted(c.opened_s for c in journal.connections)

    _until(lambda: len(arrived()) >= count, "new kernel flows do not go on without any process")
    return arrived()[-1]


@pytest.mark.parametrize("part", list(Part), ids=lambda part: part.name.lower())
def test_killing_a_process_opens_nothing_and_heals(stage: Stage, part: Part) -> None:
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
        os.kill(find_process(stage.daemon, part), signal.SIGKILL)
        time.sleep(pause_s)
    _await_enforcing(stage, devbox)
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
    gate = find_process(stage.daemon, Part.GATE)
    stage.daemon.kill()
    _until(lambda: not Path(f"/proc/{gate}").exists(), "the gate lives on")
    # The far side notes in order: what the gate had still dialled comes before what the box opens from now on.
    since_s = _await_connections(stage, stage.internet.now_s(), 2)
    _await_connections(stage, since_s, 10)
    journal = stage.internet.journal(since_s=since_s)
    assert not [c for c in journal.connections if c.address == ALLOWED.address4], "name-bound flows fail closed"
    stage.daemon.start()
    _await_enforcing(stage, devbox)
    run(devbox, "touch /tmp/stop-traffic /tmp/flows-check")
    assert finish(flows)[0]["alive"] == 10
    assert finish(traffic)["answers"][2:] == [0, 0]
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED.address4)
    assert not journal.reached(IN_NO_NETWORK)


def test_killing_processes_while_updates_run_opens_nothing(stage: Stage) -> None:
    random = Random(4711)
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    devbox = stage.devbox(policy)
    since_s = stage.internet.now_s()
    traffic = start(
        devbox,
        "traffic",
        [
            {"kind": "tls", "name": ALLOWED.name},
            {"kind": "raw", "address": IN_NETWORK_A, "port": 7},
            {"kind": "tls", "name": DENIED.name},
            {"kind": "tls", "name": DENIED.name, "address": ALLOWED.address4},
            {"kind": "raw", "address": DENIED.address6, "port": 7},
            {"kind": "udp", "address": IN_NO_NETWORK, "port": 7},
        ],
    )
    stop = threading.Event()

    def update() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            hosts, networks = ([ALLOWED.name], []) if number % 2 else ([ALSO.name], [NETWORK_A])
            with contextlib.suppress(APIError):
                policy.update(allowed_hostnames=hosts, allowed_cidrs=[{"cidr": cidr} for cidr in networks])

    updating = threading.Thread(target=update)
    updating.start()
    try:
        for part in random.choices(list(Part), k=6):
            time.sleep(random.random())
            os.kill(find_process(stage.daemon, part), signal.SIGKILL)
    finally:
        stop.set()
        updating.join()
    _set_policy(policy, [ALLOWED.name])
    _await_enforcing(stage, devbox)
    run(devbox, "touch /tmp/stop-traffic")
    assert finish(traffic)["answers"][2:] == [0, 0, 0, 0]
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED.address4)
    assert not journal.reached(DENIED.address6)
    assert not journal.reached(IN_NO_NETWORK)
    assert DENIED.name not in {query.name for query in journal.queries}


def _set_policy(policy: NetworkPolicy, hosts: list[str]) -> None:
    """Update the policy, however long the server takes to come back."""
    deadline_s = time.monotonic() + CONVERGED_S_MAX
    while True:
        try:
            policy.update(allowed_hostnames=hosts, allowed_cidrs=[])
        except APIError:
            if time.monotonic() > deadline_s:
                raise
        else:
            return
