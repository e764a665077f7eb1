"""The agent's terminal socket: who is served, what is refused, and that nothing stays open."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from outgate.agent import terminals as agent_terminals
from outgate.agent.serving import bind_unix
from outgate.agent.terminals import Terminals
from outgate.client.packets import PACKET_BYTES_MAX, PacketSocket
from outgate.client.terminals import (
    SOCKET_NAME,
    AgentTerminals,
    OutputStream,
    Terminal,
    TerminalRefusal,
    TerminalUnavailableError,
)
from outgate.client.transport import unix_url
from outgate.model.terminals import OpenPty, PtyAction, RefusalCode, Refused, RunProgram, TerminalSize
from support.local_terminals import LocalRuntime

TOKEN = "token-of-the-tests"  # noqa: S105 - of the tests
SIZE = TerminalSize(80, 24)


@pytest.fixture
def runtime(tmp_path: Path) -> LocalRuntime:
    return LocalRuntime(tmp_path)


def run(work: Callable[[AgentTerminals, str], Awaitable[None]], runtime: LocalRuntime, token: str = TOKEN) -> None:
    """Do ``work`` with an agent that serves; nothing may be left open afterwards."""
    before = open_descriptors()

    async def with_agent() -> None:
        url = unix_url(runtime.home / "agent.sock")
        with bind_unix(runtime.home / SOCKET_NAME, kind=socket.SOCK_SEQPACKET) as bound:
            serving = asyncio.ensure_future(Terminals(runtime, TOKEN, (os.geteuid(),)).serve(bound))
            try:
                await work(AgentTerminals(token), url)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(with_agent())
    runtime.close()
    assert open_descriptors() == before


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def read_all(terminal: Terminal, stream: OutputStream = OutputStream.STDOUT) -> bytes:
    data = b""
    while more := await terminal.read(stream):
        data += more
    return data


def test_a_program(runtime: LocalRuntime) -> None:
    async def work(agent: AgentTerminals, url: str) -> None:
        terminal = await agent.run(url, "dbx_1", "cat; echo err >&2; exit 3", {"A": "b"}, None)
        await terminal.write(b"in")
        await terminal.write_end()
        assert await read_all(terminal) == b"in"
        assert await read_all(terminal, OutputStream.STDERR) == b"err\n"
        assert await terminal.ended == 3
        await terminal.close()
        await terminal.close()

    run(work, runtime)
    assert runtime.specs[0].environment == {"A": "b"}


def test_the_end_of_the_peer_hangs_up(runtime: LocalRuntime) -> None:
    async def work(agent: AgentTerminals, url: str) -> None:
        for size in (None, SIZE):
            terminal = await agent.run(url, "dbx_1", "echo up; exec sleep 1000", {}, size)
            assert await terminal.read() in (b"up\n", b"up\r\n")
            await terminal.close()
        for process in runtime.running.values():
            await asyncio.to_thread(process.wait, 10)

    run(work, runtime)


def test_the_end_of_the_agent_ends_programs_and_is_noticed(runtime: LocalRuntime) -> None:
    left: list[Terminal] = []

    async def work(agent: AgentTerminals, url: str) -> None:
        left.append(await agent.run(url, "dbx_1", "exec sleep 1000", {}, None))

    async def outside() -> None:
        url = unix_url(runtime.home / "agent.sock")
        with bind_unix(runtime.home / SOCKET_NAME, kind=socket.SOCK_SEQPACKET) as bound:
            serving = asyncio.ensure_future(Terminals(runtime, TOKEN, (os.geteuid(),)).serve(bound))
            await work(AgentTerminals(TOKEN), url)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            assert await asyncio.wait_for(left[0].ended, 10) is None
            await left[0].close()

    asyncio.run(outside())
    runtime.close()


def test_no_token_no_terminal(runtime: LocalRuntime) -> None:
    async def work(agent: AgentTerminals, url: str) -> None:
        with pytest.raises(TerminalUnavailableError, match="token"):
            await agent.run(url, "dbx_1", "true", {}, None)
        with pytest.raises(TerminalUnavailableError, match="token"):
            await agent.control_pty(url, "dbx_1", "main", PtyAction.CLOSE)

    run(work, runtime, token="another")
    assert runtime.specs == []


def test_refusals_carry_their_reason(runtime: LocalRuntime) -> None:
    runtime.stopped.add("dbx_off")

    async def work(agent: AgentTerminals, url: str) -> None:
        with pytest.raises(TerminalRefusal) as refused:
            await agent.run(url, "dbx_off", "true", {}, None)
        assert refused.value.refused.code is RefusalCode.NOT_RUNNING
        with pytest.raises(TerminalRefusal) as refused:
            await agent.control_pty(url, "dbx_1", "main", PtyAction.SIGNAL, signal=2)
        assert refused.value.refused.code is RefusalCode.NOT_FOUND
        with pytest.raises(TerminalUnavailableError, match="does not answer"):
            await agent.run(url.replace("agent.sock", "no/agent.sock"), "dbx_1", "true", {}, None)
        with pytest.raises(TerminalUnavailableError, match="another host"):
            await agent.run("http://192.0.2.1:1", "dbx_1", "true", {}, None)

    run(work, runtime)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{}",
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"type":"run","token":"' + TOKEN.encode() + b'","devbox_id":7}',
        b'{"type":"dance","token":"' + TOKEN.encode() + b'"}',
        b"x" * (PACKET_BYTES_MAX + 100),
    ],
    ids=["end", "empty", "no-utf8", "deep", "type", "kind", "long"],
)
def test_nonsense_is_answered_or_dropped_and_harms_nobody(runtime: LocalRuntime, sent: bytes) -> None:
    async def work(agent: AgentTerminals, url: str) -> None:
        raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        raw.connect(str(runtime.home / SOCKET_NAME))
        peer = PacketSocket(raw)
        if sent:
            # A descriptor that nobody asked for is closed, not kept.
            await peer.send(sent, (0,))
        else:
            raw.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(OSError):
            answer = (await asyncio.wait_for(peer.receive(), 10)).data
        peer.close()
        if answer:
            assert msgspec.json.decode(answer, type=Refused).code is RefusalCode.INVALID
        terminal = await agent.run(url, "dbx_1", "echo fine", {}, None)
        assert await read_all(terminal) == b"fine\n"
        await terminal.close()

    run(work, runtime)


def test_a_devbox_has_a_bounded_number_of_programs(runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_terminals, "PROGRAMS_PER_DEVBOX_MAX", 2)

    async def work(agent: AgentTerminals, url: str) -> None:
        first = await agent.run(url, "dbx_1", "cat", {}, None)
        second = await agent.run(url, "dbx_1", "cat", {}, None)
        with pytest.raises(TerminalRefusal) as refused:
            await agent.run(url, "dbx_1", "true", {}, None)
        assert refused.value.refused.code is RefusalCode.TOO_MANY
        other = await agent.run(url, "dbx_2", "true", {}, None)
        await first.write_end()
        assert await first.ended == 0
        for terminal in (first, second, other):
            await terminal.close()
        async with asyncio.timeout(30):
            while True:
                with suppress(TerminalRefusal):
                    await (await agent.run(url, "dbx_1", "true", {}, None)).close()
                    return
                await asyncio.sleep(0.05)

    run(work, runtime)


def test_documents_hold_what_they_are_given() -> None:
    asked = RunProgram("t", "dbx_1", "x" * 128 * 1024, {"A": "é"}, SIZE)
    data = msgspec.json.encode(asked)
    assert len(data) < PACKET_BYTES_MAX
    assert msgspec.json.decode(data, type=RunProgram | OpenPty) == asked
