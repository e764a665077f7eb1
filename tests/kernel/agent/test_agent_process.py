"""The agent process with the kernel, the gate and the runtime as they are: order, updates, deaths."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from outgate.client.transport import unix_url
from outgate.model.desired import ExecutionRequest
from support.agent_rig import HOST_ADDRESS, OTHER_ADDRESS, AgentRig, open_agent_rig
from support.agent_world import make_devbox, make_document
from support.internet import Closing

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

FETCH = "curl -sS --max-time 8 -o /dev/null -w '%{http_code}' http://allowed.example:8080/"
FETCH_OTHER = f"curl -sS --max-time 8 -o /dev/null -w '%{{http_code}}' http://{OTHER_ADDRESS}:8080/"
FETCH_QUICKLY = "curl -sS --max-time 1 -o /dev/null http://allowed.example:8080/"
FETCH_DENIED = "curl -sS --max-time 8 http://other.example/"


def with_rig(scenario: Callable[[AgentRig], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_agent_rig() as rig:
            await scenario(rig)

    asyncio.run(run())


async def start_devbox(rig: AgentRig, name: str = "dbx_a") -> None:
    rig.start()
    policy = make_document(hosts=("allowed.example",), cidrs=(f"{OTHER_ADDRESS}/32",))
    rig.api.put(policy, make_devbox(name))
    await rig.until_phase(name, "running")


async def command(*arguments: str) -> bytes:
    """What a command prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = await process.communicate()
    assert process.returncode == 0, errors
    return output


def reached(rig: AgentRig, address: str) -> int:
    """How many connections the far side has seen at ``address``."""
    return len(rig.internet.journal(address=address).connections)


def test_a_devbox_lives_under_its_policy_and_leaves_nothing() -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        assert (await rig.run("dbx_a", FETCH)).stdout == "200"
        assert (await rig.run("dbx_a", FETCH_OTHER)).stdout == "200"
        denied = await rig.run("dbx_a", FETCH_DENIED)
        assert denied.exit_status == 6, denied  # curl: could not resolve host
        before = reached(rig, OTHER_ADDRESS)

        revision = rig.api.put(make_document(revision=2))
        await rig.until(lambda: rig.api.enforced == revision)
        assert (await rig.run("dbx_a", FETCH)).exit_status == 6
        assert (await rig.run("dbx_a", FETCH_OTHER)).exit_status == 7  # curl: could not connect, at once
        assert reached(rig, OTHER_ADDRESS) == before

        rig.api.shut_down("dbx_a")
        await rig.until_phase("dbx_a", "shutdown")
        assert rig.namespaces() == {f"outgate-{rig.settings.instance_id}"}
        rig.api.forget("dbx_a")
        await rig.until(lambda: not list((rig.settings.agent_dir / "devboxes").iterdir()))
        assert await rig.stop() == 0

    with_rig(scenario)


def test_agent_and_gate_may_be_killed_and_everything_converges() -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        (gate,) = rig.gate_pids()
        os.kill(gate, signal.SIGKILL)
        await rig.until(lambda: rig.gate_pids() not in ([], [gate]))
        await rig.until(lambda: rig.api.reports[-1].ready and not rig.api.warnings())
        assert (await rig.run("dbx_a", FETCH)).stdout == "200"

        (gate,) = rig.gate_pids()
        rig.kill()
        await rig.until(lambda: not Path(f"/proc/{gate}").exists(), timeout_s=5)
        reports = len(rig.api.reports)
        rig.start()
        await rig.until(lambda: len(rig.api.reports) > reports and rig.api.reports[-1].ready)
        assert rig.api.observed["dbx_a"].phase.value == "running"
        assert (await rig.run("dbx_a", FETCH)).stdout == "200"
        assert (await rig.run("dbx_a", FETCH_DENIED)).exit_status == 6

    with_rig(scenario)


STOP = "/tmp/stop"
ECHO = f"""
import os, socket, time
s = socket.create_connection(("{OTHER_ADDRESS}", 7), 5)
while not os.path.exists("{STOP}"):
    s.sendall(b"x")
    assert s.recv(1)
    time.sleep(0.1)
print("echoed")
"""
"""A flow by an address rule: a byte each 0.1 s."""

KNOCK = f"until test -e {STOP}; do began=$(date +%s.%N); {FETCH_QUICKLY} && echo $began; sleep 0.1; done"
"""New lookups and new name-bound connections, one after the other; prints when one began that succeeded."""
KNOCK_S_MAX = 1.5
"""How long one of them may go on."""


def test_while_the_agent_is_dead_nothing_opens_and_kernel_flows_go_on() -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        url = unix_url(rig.settings.agent_socket)
        await rig.gateway.start_execution(url, "dbx_a", ExecutionRequest("echo", f"python3 -c '{ECHO}'"))
        await rig.gateway.start_execution(url, "dbx_a", ExecutionRequest("knock", KNOCK))
        await rig.until(lambda: reached(rig, OTHER_ADDRESS) and reached(rig, HOST_ADDRESS) > 1)
        (gate,) = rig.gate_pids()
        rig.kill()
        await rig.until(lambda: not Path(f"/proc/{gate}").exists())
        dead_s = time.time()
        await asyncio.sleep(1)  # the far side may still be noting what the gate sent
        before = reached(rig, HOST_ADDRESS)
        await asyncio.sleep(3)
        alive_s, after = time.time(), reached(rig, HOST_ADDRESS)
        rig.start()
        await rig.until(lambda: reached(rig, HOST_ADDRESS) > after)
        await rig.run("dbx_a", f"touch {STOP}")
        echo = await rig.gateway.read_execution(url, "dbx_a", "echo", wait_s=20, last_n=5)
        knocked = await rig.gateway.read_execution(url, "dbx_a", "knock", wait_s=30, last_n=1000)
        assert echo is not None
        assert (echo.exit_status, echo.stdout) == (0, "echoed\n"), echo
        assert knocked is not None
        times_s = [float(line) for line in knocked.stdout.split()]
        assert [t for t in times_s if t < dead_s], "it worked before"
        assert not [t for t in times_s if dead_s < t < alive_s - KNOCK_S_MAX]
        assert [t for t in times_s if t > alive_s], "it works again"
        assert before == after

    with_rig(scenario)


WAIT = """
import socket, time
s = socket.create_connection(("allowed.example", 7), 5)
s.sendall(b"x")
assert s.recv(1)
print("open", flush=True)
try:
    print(s.recv(1))
except OSError:
    print("reset")
"""


def test_a_gate_that_is_killed_leaves_no_connection_that_goes_on_sending() -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        url = unix_url(rig.settings.agent_socket)
        await rig.gateway.start_execution(url, "dbx_a", ExecutionRequest("wait", f"python3 -c '{WAIT}'"))
        await rig.until(lambda: reached(rig, HOST_ADDRESS))
        await asyncio.sleep(1)
        (gate,) = rig.gate_pids()
        os.kill(gate, signal.SIGKILL)
        # Reset, not ended: an orphaned socket would first send what it holds, whatever the rules say by then.
        await rig.until(lambda: rig.internet.journal(address=HOST_ADDRESS).connections[-1].closing is Closing.RESET)

    with_rig(scenario)


def test_an_update_while_the_api_is_silent_waits_and_then_comes_into_force() -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        rig.api.is_down = True
        revision = rig.api.put(make_document(revision=2))
        await asyncio.sleep(1)
        rig.api.is_down = False
        rig.api._wake()
        await rig.until(lambda: rig.api.enforced == revision)
        assert (await rig.run("dbx_a", FETCH)).exit_status == 6

    with_rig(scenario)


def test_a_policy_update_is_not_delayed_by_devboxes_that_start() -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        names = [f"dbx_{number}" for number in range(10)]
        rig.api.put(*map(make_devbox, names))
        revision = rig.api.put(make_document(revision=2, hosts=("h2.example",)))
        await rig.until_enforced(revision)
        # What came first is not done: starting ten sandboxes takes longer than any update.
        seen = [rig.api.observed.get(name) for name in names]
        assert [box for box in seen if box is None or box.phase.value != "running"], seen
        for name in names:
            await rig.until_phase(name, "running")

    with_rig(scenario)


@pytest.mark.parametrize("deed", ["flush chain inet outgate forward", "delete table inet outgate", "flush ruleset"])
def test_foreign_hands_on_the_rules_are_undone_and_reported(deed: str) -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        assert (await rig.run("dbx_a", FETCH)).stdout == "200"
        namespace = f"/run/netns/outgate-{rig.settings.instance_id}"
        await command("nsenter", f"--net={namespace}", "nft", *deed.split())
        await rig.until(lambda: "drift_repaired" in rig.api.warnings())
        # The warning is on its way while the rules are set again.
        await rig.run("dbx_a", f'for n in $(seq 100); do test "$({FETCH})" = 200 && break; sleep 0.1; done')
        assert (await rig.run("dbx_a", FETCH)).stdout == "200"
        assert (await rig.run("dbx_a", FETCH_OTHER)).stdout == "200"
        assert (await rig.run("dbx_a", "curl -sS --max-time 5 http://45.45.60.1/")).exit_status == 7

    with_rig(scenario)


def test_the_router_namespace_may_be_deleted_and_comes_back_with_a_gate_in_it() -> None:
    async def scenario(rig: AgentRig) -> None:
        await start_devbox(rig)
        (gate,) = rig.gate_pids()
        await command("ip", "netns", "delete", f"outgate-{rig.settings.instance_id}")
        await rig.until(lambda: rig.gate_pids() not in ([], [gate]), timeout_s=60)
        await rig.until(lambda: rig.api.reports[-1].ready)
        rig.api.put(make_devbox("dbx_b"))
        await rig.until_phase("dbx_b", "running")
        assert (await rig.run("dbx_b", FETCH)).stdout == "200"

    with_rig(scenario)
