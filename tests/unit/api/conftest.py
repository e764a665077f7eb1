import itertools
from collections.abc import Iterator

import httpx
import pytest

from outgate.control.configuration import ApiSettings
from support.api_server import ApiServer

_names = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One real server for all tests; each test has an account of its own."""
    with ApiServer(tmp_path_factory.mktemp("api"), ApiSettings(enforce_wait_s_max=30.0)) as running:
        yield running


@pytest.fixture
def client(server: ApiServer) -> Iterator[httpx.Client]:
    key = server.new_account(f"account {next(_names)}")
    with server.client(key.api_key) as opened:
        yield opened


@pytest.fixture
def stranger(server: ApiServer) -> Iterator[httpx.Client]:
    """A client of another account."""
    key = server.new_account(f"account {next(_names)}")
    with server.client(key.api_key) as opened:
        yield opened


@pytest.fixture
def policy_id(client: httpx.Client) -> str:
    answer = client.post("/v1/network-policies", json={"name": "policy of the test"})
    assert answer.status_code == 200
    return str(answer.json()["id"])
