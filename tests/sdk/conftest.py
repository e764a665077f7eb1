from collections.abc import Iterator

import pytest

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
