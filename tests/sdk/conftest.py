from collections.abc import Iterator

import pytest
from runloop_api_client import Runloop, RunloopSDK

from outgate.control.configuration import ApiSettings
from support.api_server import ApiServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The real server with an agent that only pretends."""
    with ApiServer(tmp_path_factory.mktemp("api"), ApiSettings(enforce_wait_s_max=1.0)) as running:
        yield running


@pytest.fixture
def api_key(server: ApiServer, request: pytest.FixtureRequest) -> str:
    return server.new_account(request.node.nodeid).api_key


@pytest.fixture
def client(server: ApiServer, api_key: str) -> Iterator[Runloop]:
    with Runloop(base_url=server.base_url, bearer_token=api_key) as opened:
        yield opened


@pytest.fixture
def sdk(server: ApiServer, api_key: str) -> Iterator[RunloopSDK]:
    opened = RunloopSDK(base_url=server.base_url, bearer_token=api_key)
    yield opened
    opened.close()
