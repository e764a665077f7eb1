"""PTY sessions over real HTTP and WebSockets, with terminals of this machine behind them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from outgate.agent import pty_sessions
from outgate.api import pty_server
from support.local_terminals import LocalRuntime
from support.terminal_world import TerminalWorld

WAIT_S = 30.0


def run(
    work: Callable[[aiohttp.ClientSession], Awaitable[None]], world: TerminalWorld, headers: dict[str, str]
) -> None:
    """Do ``work`` with a client that shows ``headers``."""

    async def with_client() -> None:
        timeout = aiohttp.ClientTimeout(total=WAIT_S)
        async with aiohttp.ClientSession(world.pty_url, headers=headers, timeout=timeout) as client:
            await work(client)

    asyncio.run(with_client())


@asynccontextmanager
async def attached(client: aiohttp.ClientSession, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with client.ws_connect(path) as frames:
        yield frames


async def until_detached(client: aiohttp.ClientSession, path: str) -> None:
    """The server notices a moment later that a client has gone."""
    async with asyncio.timeout(WAIT_S):
        while True:
            async with client.get(path) as answer:
                if not (await answer.json())["attached"]:
                    return
            await asyncio.sleep(0.01)


async def read_until(frames: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
    data = b""
    try:
        async with asyncio.timeout(WAIT_S):
            while wanted not in data:
                frame = await frames.receive()
                assert frame.type is aiohttp.WSMsgType.BINARY, (frame, data)
                data += frame.data
    except TimeoutError:
        raise AssertionError(f"{wanted!r} is not in what was said: {data[-1000:]!r}") from None
    return data


async def read_close(frames: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    async with asyncio.timeout(WAIT_S):
        while True:
            frame = await frames.receive()
            if frame.type is aiohttp.WSMsgType.CLOSE:
                return frame.data, frame.extra or ""
            assert frame.type is aiohttp.WSMsgType.BINARY, frame


def test_a_session_is_made_attached_to_left_and_found_again(world: TerminalWorld, runtime: LocalRuntime) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        async with client.get("/pty/main?cols=91&rows=33") as answer:
            assert answer.status == 200
            assert await answer.json() == {
                "attached": False,
                "created": True,
                "session_name": "main",
                "cols": 91,
                "rows": 33,
                "connect_url": "/pty/main",
                "idle_ttl_seconds": 1800,
                "protocol_version": "1",
                "status": "open",
            }
        async with attached(client, "/pty/main") as frames:
            await frames.send_bytes(b"stty size; mine=kept\n")
            await read_until(frames, b"33 91")
        async with client.get("/pty/main") as answer:
            again = await answer.json()
            assert (again["created"], again["cols"]) == (False, 91)
        await until_detached(client, "/pty/main")
        async with attached(client, "/pty/main?cols=100&rows=40") as frames:
            await frames.send_str("echo $mine; stty size\n")
            said = await read_until(frames, b"40 100")
            assert b"kept" in said
            await frames.send_bytes(b"exit 5\n")
            assert await read_close(frames) == (1000, "exit status 5")
        async with client.get("/pty/main") as answer:
            assert (await answer.json())["created"]

    run(work, world, world.pty_tunnel(world.devbox()))
    assert len(runtime.specs) == 2


def test_a_session_that_nobody_watches_goes_on_and_tells_later(world: TerminalWorld) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        async with attached(client, "/pty/busy") as frames:
            # More than any buffer of the kernel's holds: it would stand still if nobody read it.
            await frames.send_bytes(b"sleep 0.5; seq 100000; echo fin\\ished; read line\n")
            await read_until(frames, b"\n")
        deadline = time.monotonic() + WAIT_S
        said = b""
        while b"finished" not in said:
            assert time.monotonic() < deadline, said[-100:]
            await asyncio.sleep(1.0)
            async with attached(client, "/pty/busy") as frames:
                said = (await frames.receive()).data
        assert said.rstrip().endswith(b"finished")
        assert len(said) <= pty_sessions.MISSED_BYTES_MAX

    run(work, world, world.pty_tunnel(world.devbox()))


def test_one_client_at_a_time(world: TerminalWorld) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        async with attached(client, "/pty/one") as frames:
            await frames.send_bytes(b"echo me\n")
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect("/pty/one")
            assert refused.value.status == 409
            async with client.get("/pty/one") as answer:
                state = await answer.json()
                assert (state["attached"], state["status"], state["created"]) == (True, "attached", False)
            await read_until(frames, b"me\r\n")
        await until_detached(client, "/pty/one")
        async with attached(client, "/pty/one") as frames:
            await frames.send_bytes(b"echo again\n")
            await read_until(frames, b"again\r\n")

    run(work, world, world.pty_tunnel(world.devbox()))


def test_control(world: TerminalWorld, runtime: LocalRuntime) -> None:
    async def control(client: aiohttp.ClientSession, body: Any, name: str = "main") -> tuple[int, dict[str, Any]]:
        async with client.post(f"/pty/{name}/control", json=body) as answer:
            return answer.status, await answer.json()

    async def work(client: aiohttp.ClientSession) -> None:
        assert (await control(client, {"action": "close"}))[0] == 404
        async with attached(client, "/pty/main") as frames:
            assert await control(client, {"action": "resize", "cols": 120, "rows": 50}) == (
                200,
                {"session_name": "main", "status": "open"},
            )
            await frames.send_bytes(b"stty size\n")
            await read_until(frames, b"50 120")
            # What the terminal echoes says nothing of what runs: the program itself says that it has the terminal.
            await frames.send_bytes(b"sh -c 'echo $((40+2)) runs; exec sleep 1000'\n")
            await read_until(frames, b"42 runs")
            assert (await control(client, {"action": "signal", "signal": "SIGINT"}))[0] == 200
            await read_until(frames, b"$ ")
            await frames.send_bytes(b"echo status=$?\n")
            await read_until(frames, b"status=130")
            bodies: tuple[Any, ...] = (
                {},
                {"action": "dance"},
                {"action": "resize"},
                {"action": "resize", "cols": 0, "rows": 10},
                {"action": "resize", "cols": 10, "rows": 1001},
                {"action": "resize", "cols": "10", "rows": 10},
                {"action": "signal"},
                {"action": "signal", "signal": "SIGNOPE"},
                [],
            )
            for bad in bodies:
                status, body = await control(client, bad)
                assert (status, bool(body["message"])) == (400, True), bad
            assert await control(client, {"action": "close"}) == (200, {"session_name": "main", "status": "closed"})
            assert (await read_close(frames))[0] == 1000
        assert (await control(client, {"action": "close"}))[0] == 404

    run(work, world, world.pty_tunnel(world.devbox()))
    for process in runtime.running.values():
        process.wait(WAIT_S)


def test_names_sizes_and_paths(world: TerminalWorld) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        for bad in ("a.b", "a%20b", "ä", "x" * 257, "a%2Fb"):
            async with client.get(f"/pty/{bad}") as answer:
                assert answer.status in (400, 404), bad
                assert (await answer.json())["message"]
        async with client.get(f"/pty/{'x' * 256}") as answer:
            assert answer.status == 200
        for number, query in enumerate(("cols=10", "cols=0&rows=10", "cols=a&rows=10", "cols=10&rows=1001")):
            async with client.get(f"/pty/size-{number}?{query}") as answer:
                state = await answer.json()
                assert (state["cols"], state["rows"]) == (80, 24), query
        async with client.get("/other") as answer:
            assert answer.status == 404
            assert (await answer.json())["code"] == "no_such_route"
        async with client.post("/pty/main/control", data=b"x" * 100_000) as answer:
            assert answer.status == 400

    run(work, world, world.pty_tunnel(world.devbox()))


def test_only_the_tunnels_own_token_opens_it(world: TerminalWorld) -> None:
    first, second = world.devbox(), world.devbox()
    headers, others = world.pty_tunnel(first), world.pty_tunnel(second)

    async def status(client: aiohttp.ClientSession) -> tuple[int, str]:
        async with client.get("/pty/main") as answer:
            return answer.status, (await answer.json())["code"] if answer.status != 200 else ""

    async def refused(client: aiohttp.ClientSession) -> None:
        assert await status(client) == (401, "unauthorized")

    async def opened(client: aiohttp.ClientSession) -> None:
        assert (await status(client))[0] == 200

    token = headers["x-runloop-tunnel-authorization"]
    run(opened, world, headers)
    run(opened, world, {"host": headers["host"], "authorization": token})
    run(opened, world, {"host": "elsewhere.test", "x-runloop-host": headers["host"], "authorization": token})
    run(refused, world, {"host": headers["host"]})
    run(refused, world, {"host": headers["host"], "authorization": "Bearer "})
    run(refused, world, headers | {"host": others["host"]})
    run(refused, world, headers | {"host": "1-nobody.tunnel.outgate.test"})
    run(refused, world, headers | {"host": "nonsense"})
    run(refused, world, {"host": headers["host"], "authorization": f"Bearer {world.api_key}"})


def test_who_guesses_at_tokens_has_to_wait_and_nobody_else(
    world: TerminalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front says who asks, behind whatever the client says itself."""
    monkeypatch.setattr("outgate.control.attempts.monotonic_s", lambda: 0.0)
    right = world.pty_tunnel(world.devbox())
    most = world.server.services.settings.auth_failures_max

    async def work(client: aiohttp.ClientSession) -> None:
        async def show(who: str, token: str | None = None) -> int:
            headers = {"x-forwarded-for": who}
            if token is not None:
                headers["x-runloop-tunnel-authorization"] = f"Bearer {token}"
            async with client.get("/pty/main", headers=headers) as answer:
                return answer.status

        guesses = [await show(f"192.0.2.{number}, 198.51.100.1", f"wrong-{number}") for number in range(most + 2)]
        assert guesses == [401] * most + [429] * 2
        assert await show("198.51.100.1") == 429, "the right one is not looked at either"
        assert await show("198.51.100.2") == 200
        assert await show("dbx_other") == 200

    run(work, world, right)


def test_a_devbox_that_does_not_run(world: TerminalWorld, runtime: LocalRuntime) -> None:
    devbox_id = world.devbox()
    headers = world.pty_tunnel(devbox_id)

    async def refused(client: aiohttp.ClientSession) -> None:
        async with client.get("/pty/main") as answer:
            body = await answer.json()
            assert (answer.status, body["code"]) == (400, "devbox_not_running"), body

    runtime.stopped.add(devbox_id)  # the host knows before the api does
    run(refused, world, headers)
    runtime.stopped.clear()
    assert world.post(f"/v1/devboxes/{devbox_id}/shutdown").status_code == 200
    run(refused, world, headers)
    for path in ("create_pty_tunnel", "create_ssh_key"):
        answer = world.post(f"/v1/devboxes/{devbox_id}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (400, "devbox_not_running")


def test_the_end_of_the_devbox_ends_the_session(world: TerminalWorld, runtime: LocalRuntime) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        async with attached(client, "/pty/main") as frames:
            await frames.send_bytes(b"echo up\n")
            await read_until(frames, b"up\r\n")
            runtime.end_box()
            assert await read_close(frames) == (1000, "exit status 137")

    run(work, world, world.pty_tunnel(world.devbox()))


def test_a_session_is_given_up_after_its_idle_time(runtime: LocalRuntime) -> None:
    """A session store of its own, whose time is made short once somebody is attached."""

    async def work() -> None:
        sessions = pty_sessions.PtySessions(runtime, idle_s_max=600.0)
        assert (await sessions.ensure("dbx_1", "main", None)).is_created
        session = await sessions.open("dbx_1", "main", None)
        assert session.expiry is not None
        with sessions.attach(session):
            assert session.expiry.cancelled(), "no time runs while somebody is attached"
            assert not (await sessions.ensure("dbx_1", "main", None)).is_created
            sessions._idle_s_max = 0.05
        async with asyncio.timeout(WAIT_S):
            while not (await sessions.ensure("dbx_1", "main", None)).is_created:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        await sessions.aclose()

    asyncio.run(work())
    assert len(runtime.running) == 2
    for process in runtime.running.values():
        process.wait(WAIT_S)


def test_no_more_sessions_than_there_may_be(world: TerminalWorld) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        for number in range(pty_sessions.SESSIONS_PER_DEVBOX_MAX):
            async with client.get(f"/pty/s{number}") as answer:
                assert answer.status == 200
        async with client.get("/pty/one-more") as answer:
            body = await answer.json()
            assert (answer.status, body["code"]) == (400, "too_many_terminals")

    run(work, world, world.pty_tunnel(world.devbox()))


def test_a_frame_over_the_bound_ends_the_connection_not_the_session(world: TerminalWorld) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        async with attached(client, "/pty/main") as frames:
            await frames.send_bytes(b"x" * (pty_server.FRAME_BYTES_MAX + 1))
            assert (await read_close(frames))[0] == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        async with client.get("/pty/main") as answer:
            assert not (await answer.json())["created"]

    run(work, world, world.pty_tunnel(world.devbox()))


def test_large_output_arrives_whole(world: TerminalWorld) -> None:
    async def work(client: aiohttp.ClientSession) -> None:
        async with attached(client, "/pty/main") as frames:
            await frames.send_bytes(
                b"stty -echo -onlcr; PS1=; head -c 3000000 /dev/zero | tr '\\0' x; echo fin\\ished\n"
            )
            said = await read_until(frames, b"finished\n")
            assert said.count(b"x") >= 3_000_000

    run(work, world, world.pty_tunnel(world.devbox()))
