"""SSH keys and PTY tunnels by the official clients: Python's two object layers, and JavaScript's over HTTP/2."""

import asyncio
from collections.abc import Iterator

import asyncssh
import pytest
import runloop_api_client
from runloop_api_client import AsyncRunloop, AsyncRunloopSDK, Runloop, RunloopSDK
from runloop_api_client.types import DevboxCreateSSHKeyResponse

from support.js_client import needs_js, run_js
from support.local_terminals import LocalRuntime
from support.terminal_world import TerminalWorld, open_terminal_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TerminalWorld]:
    directory = tmp_path_factory.mktemp("world")
    runtime = LocalRuntime(directory)
    with open_terminal_world(directory, runtime) as made:
        yield made
    runtime.close()


async def say(made: DevboxCreateSSHKeyResponse, command: str) -> str:
    host, _, port = made.url.rpartition(":")
    key = asyncssh.import_private_key(made.ssh_private_key)
    async with asyncssh.connect(
        host, int(port), username=made.ssh_user, client_keys=[key], known_hosts=None, config=None
    ) as client:
        return str((await client.run(command, check=True)).stdout)


def test_python(world: TerminalWorld) -> None:
    with RunloopSDK(base_url=world.server.base_url, bearer_token=world.api_key) as sdk, sdk.devbox.create() as devbox:
        made = devbox.net.create_ssh_key()
        assert (made.id, made.ssh_user) == (devbox.id, "user")
        assert asyncio.run(say(made, "echo reached")) == "reached\n"
        devbox.shutdown()
        with pytest.raises(runloop_api_client.BadRequestError, match="needs a running devbox"):
            devbox.net.create_ssh_key()


def test_python_asyncio(world: TerminalWorld) -> None:
    async def work() -> None:
        async with AsyncRunloopSDK(base_url=world.server.base_url, bearer_token=world.api_key) as sdk:
            devbox = await sdk.devbox.create()
            made = await devbox.net.create_ssh_key()
            assert await say(made, "echo reached") == "reached\n"
            await devbox.shutdown()

    asyncio.run(work())


def test_python_pty(world: TerminalWorld) -> None:
    """The generated client speaks to a PTY session as it does to the API: by the tunnel's own base URL."""
    with Runloop(base_url=world.server.base_url, bearer_token=world.api_key) as client:
        tunnel = client.devboxes.create_pty_tunnel(world.devbox())
    headers = {
        "host": f"1-{tunnel.tunnel_key}.tunnel.outgate.test",
        "x-runloop-tunnel-authorization": f"Bearer {tunnel.auth_token}",
    }
    with Runloop(base_url=world.pty_url, bearer_token="x", default_headers=headers, max_retries=0) as client:
        state = client.pty.connect("main", cols=100, rows=30)
        assert (state.created, state.attached, state.cols, state.rows) == (True, False, 100, 30)
        assert (state.connect_url, state.idle_ttl_seconds) == ("/pty/main", 1800)
        assert client.pty.control("main", action="resize", cols=90, rows=20).status == "open"
        assert client.pty.connect("main").cols == 90
        with pytest.raises(runloop_api_client.BadRequestError, match="cols"):
            client.pty.control("main", action="resize", cols=0, rows=20)
        assert client.pty.control("main", action="close").session_name == "main"
        with pytest.raises(runloop_api_client.NotFoundError):
            client.pty.control("main", action="close")

    async def look_again() -> None:
        async with AsyncRunloop(base_url=world.pty_url, bearer_token="x", default_headers=headers) as client:
            assert (await client.pty.connect("main")).created

    asyncio.run(look_again())


@needs_js[0]
@needs_js[1]
def test_javascript_over_http2(world: TerminalWorld) -> None:
    assert "# pass 1" in run_js("terminals.test.mjs", world.server.base_url, world.api_key)
