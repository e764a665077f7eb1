"""Tunnels by both official clients, unchanged: opened, shown, named by URL, removed."""

import asyncio
from collections.abc import Iterator

import pytest
import runloop_api_client
from runloop_api_client import AsyncRunloopSDK, RunloopSDK

from outgate.control.configuration import ApiSettings
from outgate.model.flow import HostContext
from outgate.model.names import DomainName
from support.api_server import ApiServer
from support.js_client import needs_js, run_js

SETTINGS = ApiSettings(enforce_wait_s_max=1.0, context=HostContext(tunnel_domain=DomainName("tunnel.runloop.test")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("api"), SETTINGS) as running:
        yield running


def test_the_python_object_layer(server: ApiServer, api_key: str) -> None:
    with RunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
        devbox = sdk.devbox.create()
        assert devbox.get_tunnel() is None
        assert devbox.get_tunnel_url(3000) is None
        tunnel = devbox.net.enable_tunnel(auth_mode="authenticated", http_keep_alive=False, wake_on_http=True)
        assert (tunnel.auth_mode, tunnel.http_keep_alive, tunnel.wake_on_http) == ("authenticated", False, True)
        assert devbox.get_tunnel() == tunnel
        assert devbox.get_tunnel_url(3000) == f"https://3000-{tunnel.tunnel_key}.tunnel.127.0.0.1"
        with pytest.raises(runloop_api_client.BadRequestError, match="has a tunnel already"):
            devbox.net.enable_tunnel()
        devbox.net.remove_tunnel()
        assert devbox.get_tunnel() is None
        at_once = sdk.devbox.create(tunnel={"auth_mode": "open"})
        shown = at_once.get_tunnel()
        assert shown is not None
        assert (shown.auth_mode, shown.auth_token) == ("open", None)


def test_the_asyncio_object_layer(server: ApiServer, api_key: str) -> None:
    async def work() -> None:
        async with AsyncRunloopSDK(base_url=server.base_url, bearer_token=api_key) as sdk:
            devbox = await sdk.devbox.create()
            tunnel = await devbox.net.enable_tunnel()
            assert await devbox.get_tunnel() == tunnel
            assert (await devbox.get_tunnel_url(80) or "").startswith(f"https://80-{tunnel.tunnel_key}.tunnel.")
            await devbox.net.remove_tunnel()
            assert await devbox.get_tunnel() is None

    asyncio.run(work())


@needs_js[0]
@needs_js[1]
def test_the_javascript_client(server: ApiServer, api_key: str) -> None:
    assert "# pass 1" in run_js("tunnels.test.mjs", server.base_url, api_key)
