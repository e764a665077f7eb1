"""Cells of the fail-closed matrix (docs/failures.md) that take a real agent with its gate, kernel and runtime.

Each docstring says verdict (what passes, what is closed), warning and recovery; each test asserts all three, and
the verdict by what reached the far side.
"""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outgate.client.transport import unix_url
from outgate.model.desired import ExecutionRequest
from support.agent_rig import HOST_ADDRESS, OTHER_ADDRESS, AgentRig, open_agent_rig
from support.agent_world import make_devbox, make_document

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

BY_NAME = "curl -sS --max-time 8 -o /dev/null http://allowed.example:8080/"
BY_ADDRESS = f"curl -sS --max-time 8 -o /dev/null http://{OTHER_ADDRESS}:8080/"
DENIED = "curl -sS --max-time 3 -o /dev/null http://45.45.55.1:8080/"
DENIED_NAME = "curl -sS --max-time 3 -o /dev/null http://other.example:8080/"


def with_rig(scenario: Callable[[AgentRig], Awaitable[None]]) -> None:
    """A devbox that may reach one name and one address, both tried and found open."""

    async def run() -> None:
        async with open_agent_rig() as rig:
            rig.internet.add_host("denied.example", addresses=("45.45.55.1",))
            rig.start()
            rig.api.put(make_document(hosts=("allowed.example",), cidrs=(f"{OTHER_ADDRESS}/32",)), make_devbox("dbx_a"))
            await rig.until_phase("dbx_a", "running")
            await expect(rig, {BY_NAME, BY_ADDRESS})
            await scenario(rig)
            assert not rig.internet.journal(address="45.45.55.1").connections
            assert "other.example" not in {query.name for query in rig.internet.journal().queries}

    asyncio.run(run())


async def expect(rig: AgentRig, opened: set[str]) -> None:
    """Of the four ways out, just ``opened`` are open; the far side agrees."""
    for command, address in ((BY_NAME, HOST_ADDRESS), (BY_ADDRESS, OTHER_ADDRESS), (DENIED, ""), (DENIED_NAME, "")):
        since_s = rig.internet.now_s()
        ran = await rig.run("dbx_a", command)
        assert (ran.exit_status == 0) is (command in opened), (command, ran)
        if address:
            seen = rig.internet.journal(since_s=since_s).reached(address)
            assert bool(seen) is (command in opened), command


def from_outside(rig: AgentRig, address: str) -> bool:
    """Whether the devbox reaches ``address``, tried past an agent that does not answer."""
    namespace = f"--net=/run/netns/{rig.layout().devbox_namespace(0)}"
    command = ["nsenter", namespace, "curl", "-sS", "--max-time", "3", "-o", "/dev/null", f"http://{address}:8080/"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


async def run_command(*command: str) -> None:
    """Run it to its end, which must be a good one."""
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0, command


def has_warned(rig: AgentRig, code: str) -> bool:
    """Whether the agent's log has the warning; the api may not be there to hear of it."""
    return any(
        '"warning_raised"' in line and f'"{code}"' in line
        for line in rig.log.read_text("utf-8", "replace").splitlines()
    )


@pytest.mark.slow
def test_an_api_that_is_gone_changes_nothing_on_the_host() -> None:
    """api, gone. Verdict: all stays as it was wanted last. Warning: api_unreachable. Recovery: the next answer."""

    async def scenario(rig: AgentRig) -> None:
        rig.api.is_down = True
        rig.api._wake()
        await rig.until(lambda: has_warned(rig, "api_unreachable"), timeout_s=120)
        await expect(rig, {BY_NAME, BY_ADDRESS})
        rig.api.is_down = False
        revision = rig.api.put(make_document(revision=2))
        await rig.until_enforced(revision)
        await rig.until(lambda: "api_unreachable" not in rig.api.warnings())
        await expect(rig, set())

    with_rig(scenario)


@pytest.mark.slow
def test_an_api_that_answers_too_late_changes_nothing_on_the_host() -> None:
    """api, slow. Verdict: as gone; a late answer is not taken for one. Warning: api_unreachable. Recovery: in time."""

    async def scenario(rig: AgentRig) -> None:
        rig.api.answer_s = 3600
        revision = rig.api.put(make_document(revision=2))
        await rig.until(lambda: has_warned(rig, "api_unreachable"), timeout_s=200)
        assert rig.api.enforced < revision
        await expect(rig, {BY_NAME, BY_ADDRESS})
        rig.api.answer_s = 0
        await rig.until(lambda: rig.api.enforced >= revision, timeout_s=120)
        await expect(rig, set())

    with_rig(scenario)


NONSENSE = [b"", b"<html>200 OK</html>", b"{}", b'{"revision":9,"full":true,"policies":"all"}', b"[]"]


@pytest.mark.slow
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_an_api_that_answers_nonsense_changes_nothing_on_the_host(nonsense: bytes) -> None:
    """api, wrong. Verdict: what cannot be read changes nothing. Warning: api_unreachable. Recovery: a right answer."""

    async def scenario(rig: AgentRig) -> None:
        rig.api.nonsense = nonsense
        rig.api._wake()
        revision = rig.api.put(make_document(revision=2))
        await rig.until(lambda: has_warned(rig, "api_unreachable"), timeout_s=120)
        await expect(rig, {BY_NAME, BY_ADDRESS})
        rig.api.nonsense = None
        await rig.until(lambda: rig.api.enforced >= revision and not rig.api.warnings())
        await expect(rig, set())

    with_rig(scenario)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that exists and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_an_agent_that_stands_still_leaves_the_policy_in_force_and_catches_up() -> None:
    """agent, slow. Verdict: kernel and gate go on under the last revision, and nothing else opens.

    Warning: the update is not reported as enforced (``x-outgate-enforced`` falls short). Recovery: it goes on.
    """

    async def scenario(rig: AgentRig) -> None:
        assert rig.process is not None
        pid = rig.process.pid  # nsenter becomes the agent
        with stopped(pid):
            revision = rig.api.put(make_document(revision=2))
            assert await asyncio.to_thread(from_outside, rig, OTHER_ADDRESS)
            assert not await asyncio.to_thread(from_outside, rig, "45.45.55.1")
            assert rig.api.enforced < revision
        await rig.until_enforced(revision)
        await expect(rig, set())

    with_rig(scenario)


@pytest.mark.slow
def test_a_gate_that_stands_still_is_found_ended_and_replaced() -> None:
    """gate, slow. Verdict: names are closed, kernel flows go on. Warning: gate_down. Recovery: another gate, by itself.

    Nothing is told to the gate meanwhile: the agent asks it now and then whether it still turns.
    """

    async def scenario(rig: AgentRig) -> None:
        (gate,) = rig.gate_pids()
        with stopped(gate):
            assert await asyncio.to_thread(from_outside, rig, OTHER_ADDRESS)
            assert not await asyncio.to_thread(from_outside, rig, HOST_ADDRESS)
            await rig.until(lambda: gate not in rig.gate_pids(), timeout_s=60)
        await rig.until(lambda: any("gate_down" in {w.code for w in report.warnings} for report in rig.api.reports))
        await rig.until(lambda: rig.api.reports[-1].ready and "gate_down" not in rig.api.warnings())
        await expect(rig, {BY_NAME, BY_ADDRESS})

    with_rig(scenario)


@pytest.mark.slow
def test_an_agent_without_descriptors_keeps_the_policy_and_goes_on_when_there_are_some() -> None:
    """file descriptors, exhausted in the agent. Verdict: what is in force stays; an update may wait. Recovery: itself.

    No warning: the agent's work on kernel and gate needs none anew.
    """

    async def scenario(rig: AgentRig) -> None:
        assert rig.process is not None
        pid = rig.process.pid  # nsenter becomes the agent
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        try:
            revision = rig.api.put(make_document(revision=2, hosts=("allowed.example",)))
            await asyncio.sleep(8)
            assert not await asyncio.to_thread(from_outside, rig, "45.45.55.1")
            assert rig.process is not None
            assert rig.process.poll() is None, "it does not die of it"
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        await rig.until_enforced(revision)
        await expect(rig, {BY_NAME})

    with_rig(scenario)


def limit_memory(pid: int, bytes_max: str) -> None:
    """Limit a process's address space, as its own user: nobody else may without CAP_SYS_RESOURCE."""
    owner = Path(f"/proc/{pid}").stat()
    command = ["prlimit", f"--pid={pid}", f"--as={bytes_max}:"]
    subprocess.run(command, check=True, user=owner.st_uid, group=owner.st_gid, extra_groups=[])


@pytest.mark.slow
def test_a_gate_without_memory_closes_names_and_comes_back() -> None:
    """memory, short in the gate. Verdict: what it cannot answer is closed, kernel flows go on.

    Warning: gate_error or gate_down, for what fails. Recovery: at once, or with the next gate.
    """

    async def scenario(rig: AgentRig) -> None:
        (gate,) = rig.gate_pids()
        limit_memory(gate, "1048576")
        many = "for n in $(seq 300); do getent hosts n$n.allowed.example >/dev/null; done; true"
        await rig.run("dbx_a", f"timeout 5 sh -c '{many}'")
        assert (await rig.run("dbx_a", BY_ADDRESS)).exit_status == 0
        assert (await rig.run("dbx_a", DENIED)).exit_status != 0
        if gate in rig.gate_pids():
            limit_memory(gate, "unlimited")
        await rig.until(lambda: rig.api.reports[-1].ready)
        await expect(rig, {BY_NAME, BY_ADDRESS})

    with_rig(scenario)


def test_on_a_full_disk_policies_are_updated_and_nothing_starts() -> None:
    """disk, full. Verdict: updates and traffic go on; nothing starts. Warning: state_unwritable. Recovery: room."""

    async def scenario(rig: AgentRig) -> None:
        records = rig.settings.agent_dir / "devboxes"
        before = {path.name: path.read_bytes() for path in records.iterdir()}
        await run_command("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(records))
        try:
            for name, content in before.items():
                (records / name).write_bytes(content)
            with contextlib.suppress(OSError), (records / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
            rig.api.put(make_devbox("dbx_b"))
            await rig.until(lambda: "state_unwritable" in rig.api.warnings())
            revision = rig.api.put(make_document(revision=2, hosts=("allowed.example",)))
            await rig.until_enforced(revision)
            await expect(rig, {BY_NAME})
            assert "dbx_b" not in rig.api.observed
            (records / "filler").unlink()
            await rig.until_phase("dbx_b", "running")
            await rig.until(lambda: "state_unwritable" not in rig.api.warnings())
            for path in records.iterdir():
                before[path.name] = path.read_bytes()
        finally:
            await run_command("umount", "-l", str(records))
            for name, content in before.items():
                (records / name).write_bytes(content)

    with_rig(scenario)


@pytest.mark.slow
def test_somebody_who_flushes_again_and_again_opens_nothing() -> None:
    """table, flushed slowly and without end. Verdict: closed between flush and repair, as wanted after it.

    Warning: drift_repaired, standing. Recovery: within five seconds of the last flush.
    """

    async def scenario(rig: AgentRig) -> None:
        router = f"--net=/run/netns/outgate-{rig.settings.instance_id}"
        for _ in range(8):
            await run_command("nsenter", router, "nft", "flush", "ruleset")
            for address in ("45.45.55.1", OTHER_ADDRESS, HOST_ADDRESS):
                await asyncio.to_thread(from_outside, rig, address)
            await asyncio.sleep(0.5)
        await rig.until(lambda: "drift_repaired" in rig.api.warnings())
        await rig.until(lambda: from_outside(rig, OTHER_ADDRESS))
        await expect(rig, {BY_NAME, BY_ADDRESS})

    with_rig(scenario)


def test_a_devbox_in_the_place_of_another_inherits_nothing() -> None:
    """Same slot, link, index, addresses and source port: no grant, pin, flow, relayed connection or record is left."""

    async def scenario(rig: AgentRig) -> None:
        hold = (
            "import socket,time\n"
            f"for n,h in ((40001,'{OTHER_ADDRESS}'),(40002,'allowed.example')):\n"
            " s=socket.socket(); s.setsockopt(1,2,1); s.bind(('',n)); s.connect((h,7)); s.send(b'x'); s.recv(1)\n"
            " globals()['s%d'%n]=s\n"
            "time.sleep(600)\n"
        )
        url = unix_url(rig.settings.agent_socket)
        since_s = rig.internet.now_s()
        await rig.gateway.start_execution(url, "dbx_a", ExecutionRequest("hold", f'python3 -c "{hold}"'))
        await rig.until(lambda: rig.internet.journal(since_s=since_s).reached(HOST_ADDRESS))
        index = _link_index(rig)
        rig.api.shut_down("dbx_a")
        await rig.until_phase("dbx_a", "shutdown")
        assert not _tracked(rig), "no flow of the first is left"
        rig.api.put(make_document("npol_2", hosts=("other.example",)), make_devbox("dbx_b", "npol_2"))
        await rig.until_phase("dbx_b", "running")
        assert _link_index(rig) == index, "the place is the same"
        since_s = rig.internet.now_s()
        go_on = (
            "import socket\n"
            f"for n,h in ((40001,'{OTHER_ADDRESS}'),(40002,'{HOST_ADDRESS}')):\n"
            " s=socket.socket(); s.setsockopt(1,2,1); s.bind(('',n)); s.settimeout(3)\n"
            " try: s.connect((h,7)); print('open')\n"
            " except OSError: print('closed')\n"
        )
        tried = await rig.run("dbx_b", f'python3 -c "{go_on}"')
        assert tried.stdout.split() == ["closed", "closed"], tried
        assert (await rig.run("dbx_b", "getent hosts allowed.example")).exit_status != 0
        journal = rig.internet.journal(since_s=since_s)
        assert not journal.reached(HOST_ADDRESS)
        assert not journal.reached(OTHER_ADDRESS)
        control = await rig.run("dbx_b", "curl -sS --max-time 8 -o /dev/null http://other.example:8080/")
        assert control.exit_status == 0, control

    async def run() -> None:
        async with open_agent_rig() as rig:
            rig.start()
            rig.api.put(make_document(hosts=("allowed.example",), cidrs=(f"{OTHER_ADDRESS}/32",)), make_devbox("dbx_a"))
            await rig.until_phase("dbx_a", "running")
            await scenario(rig)

    asyncio.run(run())


def _in_router(rig: AgentRig, *command: str) -> str:
    router = f"--net=/run/netns/outgate-{rig.settings.instance_id}"
    return subprocess.run(["nsenter", router, *command], check=True, capture_output=True, text=True).stdout


def _link_index(rig: AgentRig) -> str:
    return _in_router(rig, "ip", "-o", "link", "show", "og0").split(":")[0]


def _tracked(rig: AgentRig) -> list[str]:
    own = f"src={rig.layout().address4(0)} "
    return [line for line in _in_router(rig, "conntrack", "-L").splitlines() if own in line]
