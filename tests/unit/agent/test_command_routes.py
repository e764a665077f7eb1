"""Commands and files over the agent's interface: what is streamed, typed, killed and refused, on a real unix socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest

from outgate.agent import stdin_sender
from outgate.agent.executions import Executions
from outgate.agent.stdin_sender import StdinSender
from outgate.client.transport import PeerRefusedError, unix_url
from outgate.model.desired import ExecutionRequest
from outgate.model.executions import StdinRequest, StdinSignal
from outgate.runtime.base import ExecutionNotFoundError
from support.sim_time import run_simulated
from unit.agent.test_http import make_runtime, open_client, serving


async def start(executions: Executions, execution_id: str, command: str = "sleep") -> None:
    await executions.start("a", ExecutionRequest(execution_id, command))


def test_output_is_followed_from_any_byte_and_let_go(tmp_path: Path) -> None:
    runtime = make_runtime()
    runtime.endless.add("sleep")

    async def scenario() -> None:
        url = unix_url(tmp_path / "agent.sock")
        async with serving(tmp_path / "agent.sock", runtime) as gateway:
            await gateway.start_execution(url, "a", ExecutionRequest("e1", "true"))
            async with gateway.follow_output(url, "a", "e1", "stderr", 7) as pieces:
                assert b"".join([piece async for piece in pieces]) == b"of e1\n"
            await gateway.start_execution(url, "a", ExecutionRequest("e2", "sleep"))
            async with gateway.follow_output(url, "a", "e2", "stdout", 0) as pieces:
                assert await anext(pieces) == b"stdout of e2\n"
                assert runtime.open_streams == 1
            for _ in range(200):
                if not runtime.open_streams:
                    break
                await asyncio.sleep(0.01)
            assert runtime.open_streams == 0
            for devbox_id, execution_id in (("a", "e9"), ("b", "e1"), ("../a", "e1")):
                with pytest.raises(PeerRefusedError) as caught:
                    async with gateway.follow_output(url, devbox_id, execution_id, "stdout", 0):
                        pass
                assert caught.value.status == 404

    asyncio.run(scenario())


def test_files_go_both_ways(tmp_path: Path) -> None:
    runtime = make_runtime()
    data = b"0123456789" * 50_000
    path = "a dir/ü?&#%2F../x"

    async def pieces_of() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 65536):
            yield data[start : start + 65536]

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("the client is gone")

    async def scenario() -> None:
        url = unix_url(tmp_path / "agent.sock")
        async with serving(tmp_path / "agent.sock", runtime) as gateway:
            await gateway.write_file(url, "a", path, pieces_of())
            assert runtime.files == {("a", path): data}
            async with gateway.read_file(url, "a", path) as pieces:
                assert b"".join([piece async for piece in pieces]) == data
            with pytest.raises(PeerRefusedError) as caught:
                async with gateway.read_file(url, "a", "absent"):
                    pass
            assert (caught.value.status, caught.value.code) == (422, "file_not_found")
            with pytest.raises(ValueError, match="the client is gone"):
                await gateway.write_file(url, "a", "half", broken())
            await asyncio.sleep(0.1)
            assert ("a", "half") not in runtime.files

    asyncio.run(scenario())
    assert runtime.open_streams == 0


def test_what_is_typed_arrives_once_whole_and_in_order() -> None:
    runtime = make_runtime()

    async def scenario() -> None:
        await runtime_start(runtime)
        sender = StdinSender(runtime)
        for key in ("k1", "k1", "k2", None, None):
            sent = await sender.send("a", "e1", StdinRequest("x", None, key))
            assert sent.is_delivered
        assert runtime.stdin == {("a", "e1"): b"xxxx"}
        assert (await sender.send("a", "e1", StdinRequest(signal=StdinSignal.INTERRUPT))).is_delivered
        assert runtime.interrupted == ["e1"]
        with pytest.raises(ExecutionNotFoundError):
            await sender.send("a", "e9", StdinRequest("x"))

    asyncio.run(scenario())


def test_a_program_that_does_not_read_holds_up_nobody_for_ever() -> None:
    runtime = make_runtime()
    runtime.unread.add("e1")

    async def scenario() -> float:
        await runtime_start(runtime)
        sender = StdinSender(runtime)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        sent = await sender.send("a", "e1", StdinRequest("x", request_id="k"))
        assert not sent.is_delivered
        assert sent.detail
        runtime.unread.clear()
        # What was not delivered is tried again when it is sent again.
        assert (await sender.send("a", "e1", StdinRequest("x", request_id="k"))).is_delivered
        return loop.time() - began_s

    assert stdin_sender.WRITE_S_MAX <= run_simulated(scenario()) < stdin_sender.WRITE_S_MAX + 1


async def runtime_start(runtime: object) -> None:
    await start(Executions(runtime), "e1")  # type: ignore[arg-type] # the made-up one


def test_kills_logs_and_refusals() -> None:
    runtime = make_runtime()

    async def scenario() -> None:
        async with open_client(runtime) as client:
            body = msgspec.json.encode(ExecutionRequest("e1", "sleep", shell_name="s"))
            await client.post("/v1/devboxes/a/executions", content=body)
            logs = (await client.get("/v1/devboxes/a/logs")).json()["lines"]
            assert [line["cmd_id"] for line in logs] == ["e1"]
            for path, content, status in (
                ("/v1/devboxes/a/executions/e1/kill", b'{"is_group":false}', 200),
                ("/v1/devboxes/a/executions/e1/kill", b'{"is_group":"no"}', 400),
                ("/v1/devboxes/a/executions/e1/stdin", b"{}", 200),
                ("/v1/devboxes/a/executions/e1/stdin", b'{"signal":"KILL"}', 400),
                ("/v1/devboxes/a/executions/e9/stdin", b"{}", 200),
            ):
                answer = await client.post(path, content=content)
                assert answer.status_code == status, path
            for path, status in (
                ("/v1/devboxes/a/executions/e1/stdout?offset=-1", 400),
                ("/v1/devboxes/a/executions/e1/stdout?offset=x", 400),
                ("/v1/devboxes/a/executions/e1/stdin2", 404),
                ("/v1/devboxes/a/logs?execution_id=e9", 404),
                ("/v1/devboxes/a/file?path=absent", 422),
            ):
                assert (await client.get(path)).status_code == status, path

    run_simulated(scenario())


def test_every_stream_is_closed_when_its_client_goes(tmp_path: Path) -> None:
    runtime = make_runtime()

    async def scenario() -> None:
        path = tmp_path / "agent.sock"
        async with serving(path, runtime) as gateway:
            await gateway.start_execution(unix_url(path), "a", ExecutionRequest("e1", "sleep"))
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            headers = {"authorization": "Bearer the-token"}
            client = httpx.AsyncClient(transport=transport, base_url="http://agent", headers=headers)
            async with (
                client,
                client.stream("GET", "/v1/devboxes/a/executions/e1/stdout") as answer,
            ):
                await anext(answer.aiter_raw())
                assert runtime.open_streams == 1
            for _ in range(200):
                if not runtime.open_streams:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("the stream stays open")

    asyncio.run(scenario())
