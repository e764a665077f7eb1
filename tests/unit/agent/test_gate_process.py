"""The gate as a child process, with children that behave badly on purpose."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from outgate.agent import gate_process
from outgate.agent.gate_process import GateClosedError, GateEvents, GateProcess, GateState
from outgate.dataplane.gate_config import GateConfig
from outgate.errors import SettingError
from outgate.model.desired import GateApply, GateRecords, GateWarning

CONFIG = GateConfig(namespace="/run/netns/x", dns_addresses=(), resolvers=("192.0.2.53",), relay_port=0)
PRELUDE = """
import json, os, socket, sys, time
control = socket.socket(fileno=int(sys.argv[1]))
def read():
    data = b""
    while len(data) < 4:
        part = control.recv(4 - len(data))
        if not part: sys.exit(0)
        data += part
    left, body = int.from_bytes(data, "big"), b""
    while len(body) < left: body += control.recv(left - len(body))
    return json.loads(body)
def send(message):
    body = json.dumps(message).encode()
    control.sendall(len(body).to_bytes(4, "big") + body)
config = read()
assert config["type"] == "config" and config["resolvers"] == ["192.0.2.53"], config
def ready(): send({"type": "ready", "relay_port": 15001})
def applied(frame, **more): send({"type": "applied", "revision": frame["revision"], **more})
"""
SERVE = PRELUDE + "ready()\nwhile True: applied(read(), flows_reset=2)\n"


class Heard(GateEvents):
    """What the gate said."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed: list[str] = []
        self.records: list[GateRecords] = []
        self.warnings: list[GateWarning] = []

    def on_open(self) -> None:
        self.opened += 1

    def on_closed(self, why: str) -> None:
        self.closed.append(why)

    def on_records(self, batch: GateRecords) -> None:
        self.records.append(batch)

    def on_warning(self, warning: GateWarning) -> None:
        self.warnings.append(warning)


@asynccontextmanager
async def running(
    program: str, config: Callable[[], GateConfig] = lambda: CONFIG
) -> AsyncIterator[tuple[GateProcess, Heard]]:
    heard = Heard()
    gate = GateProcess(config, heard, lambda fd: (sys.executable, "-c", program, str(fd)))
    task = asyncio.ensure_future(gate.run())
    try:
        yield gate, heard
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_configured_opened_and_applied() -> None:
    async def scenario() -> None:
        async with running(SERVE) as (gate, heard):
            with pytest.raises(GateClosedError):
                await gate.apply(GateApply(1, full=True))
            await until(lambda: gate.state is GateState.OPEN)
            assert heard.opened == 1
            for revision in range(1, 50):
                answer = await gate.apply(GateApply(revision, full=revision == 1))
                assert (answer.revision, answer.flows_reset) == (revision, 2)

    asyncio.run(scenario())


def test_frames_that_are_sent_together_are_answered_in_turn() -> None:
    async def scenario() -> None:
        async with running(SERVE) as (gate, _heard):
            await until(lambda: gate.state is GateState.OPEN)
            answers = await asyncio.gather(*(gate.apply(GateApply(n, full=True)) for n in range(1, 20)))
            assert [answer.revision for answer in answers] == list(range(1, 20))

    asyncio.run(scenario())


def test_records_and_warnings_are_passed_on() -> None:
    program = PRELUDE + (
        "ready()\n"
        'send({"type": "records", "records": [], "dropped": 3})\n'
        'send({"type": "warning", "code": "upstream_down", "text": "no resolver answers"})\n'
        "while True: applied(read())\n"
    )

    async def scenario() -> None:
        async with running(program) as (_gate, heard):
            await until(lambda: heard.warnings)
            assert [batch.dropped for batch in heard.records] == [3]
            assert heard.warnings == [GateWarning("upstream_down", "no resolver answers")]

    asyncio.run(scenario())


def test_a_gate_that_dies_is_started_again_and_knows_nothing(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = PRELUDE + f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\nready()\nread()\nsys.exit(3)\n"

    async def scenario() -> None:
        async with running(program) as (gate, heard):
            await until(lambda: gate.state is GateState.OPEN)
            first = int(pid_file.read_text())
            with pytest.raises(GateClosedError):
                await gate.apply(GateApply(1, full=True))
            assert not is_alive(first), "closed means gone"
            await until(lambda: gate.epoch == 2 and gate.state is GateState.OPEN)
            assert heard.closed == ["it ended with status 3"]

    asyncio.run(scenario())


def test_a_gate_that_hangs_is_killed_before_anybody_is_told_that_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_process, "APPLY_WAIT_S", 0.3)
    pid_file = tmp_path / "pid"
    program = PRELUDE + f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\nready()\ntime.sleep(600)\n"

    async def scenario() -> None:
        async with running(program) as (gate, heard):
            await until(lambda: gate.state is GateState.OPEN)
            pid = int(pid_file.read_text())
            with pytest.raises(GateClosedError):
                await gate.apply(GateApply(1, full=True))
            assert not is_alive(pid)
            await until(lambda: heard.closed)
            assert heard.closed == ["it was ended by SIGKILL"]

    asyncio.run(scenario())


def test_a_gate_that_hangs_while_nobody_has_anything_to_tell_it_is_found_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate_process, "CHECK_WAIT_S", 0.3)
    program = PRELUDE + "ready()\napplied(read())\napplied(read())\ntime.sleep(600)\n"

    async def scenario() -> None:
        async with running(program) as (gate, heard):
            await until(lambda: gate.state is GateState.OPEN)
            await gate.apply(GateApply(1, full=True))
            await gate.check(gate.epoch)
            assert not heard.closed, "one that answers goes on"
            await gate.check(gate.epoch - 1)
            assert not heard.closed, "another gate's table is no reason to ask this one"
            with pytest.raises(GateClosedError):
                await gate.check(gate.epoch)
            await until(lambda: heard.closed)
            assert heard.closed == ["it was ended by SIGKILL"]

    asyncio.run(scenario())


def test_a_gate_that_only_closes_its_control_socket_is_not_closed_until_it_is_gone(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = PRELUDE + (
        f"ready()\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\nread()\ncontrol.close()\ntime.sleep(600)\n"
    )

    async def scenario() -> None:
        async with running(program) as (gate, heard):
            await until(lambda: gate.state is GateState.OPEN and pid_file.exists() and pid_file.read_text())
            pid = int(pid_file.read_text())
            with pytest.raises(GateClosedError):
                await gate.apply(GateApply(1, full=True))
            assert not is_alive(pid)
            await until(lambda: heard.closed)

    asyncio.run(scenario())


def test_a_refused_table_is_the_end_of_that_gate(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = PRELUDE + (
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\nready()\n"
        'while True: applied(read(), error="unknown policy")\n'
    )

    async def scenario() -> None:
        async with running(program) as (gate, _heard):
            await until(lambda: gate.state is GateState.OPEN)
            pid = int(pid_file.read_text())
            with pytest.raises(GateClosedError, match="unknown policy"):
                await gate.apply(GateApply(1, full=True))
            assert not is_alive(pid)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("control.sendall(b'\\xff\\xff\\xff\\xff')", "a frame of 4294967295 bytes was announced"),
        ("control.sendall(b'\\0\\0\\0\\2{]')", "the gate sent what is no message"),
        ("send({'type': 'warning', 'code': 'a', 'text': 'b'})", "its first word was GateWarning"),
        ("sys.exit(0)", "it ended with status 0"),
    ],
)
def test_what_a_gate_must_not_say(words: str, complaint: str) -> None:
    async def scenario() -> None:
        async with running(PRELUDE + words) as (gate, heard):
            await until(lambda: heard.closed)
            assert complaint in heard.closed[0]
            assert gate.state is GateState.CLOSED

    asyncio.run(scenario())


def test_a_gate_that_cannot_be_configured_or_started_is_tried_again() -> None:
    tries = 0

    def config() -> GateConfig:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise SettingError("no resolver")
        return CONFIG

    async def scenario() -> None:
        async with running(SERVE, config) as (gate, heard):
            await until(lambda: gate.state is GateState.OPEN)
            assert heard.closed == ["it cannot be configured: no resolver"] * 2

    asyncio.run(scenario())


def test_a_command_that_is_not_there_is_a_reason() -> None:
    async def scenario() -> None:
        heard = Heard()
        gate = GateProcess(lambda: CONFIG, heard, lambda _fd: ("/nonexistent/gate",))
        task = asyncio.ensure_future(gate.run())
        await until(lambda: heard.closed)
        task.cancel()
        assert "could not be started" in heard.closed[0]

    asyncio.run(scenario())


def test_restart_ends_the_gate_and_the_end_of_the_agent_is_its_end(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = SERVE.replace("ready()\nwhile", f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))\nready()\nwhile")

    async def scenario() -> None:
        async with running(program) as (gate, _heard):
            await until(lambda: gate.state is GateState.OPEN)
            gate.restart()
            await until(lambda: gate.epoch == 2 and gate.state is GateState.OPEN)

    asyncio.run(scenario())
    assert not is_alive(int(pid_file.read_text()))
