import itertools
from collections.abc import Iterator

import httpx
import pytest

from outgate.control.accounts import NewKey
from outgate.control.configuration import ApiSettings
from support.api_server import ApiServer
from support.console import Teller, Visitor, make_devbox, make_policy, visiting

_names = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One real server for all tests; each test has an account of its own."""
    settings = ApiSettings(enforce_wait_s_max=1.0, auth_failures_max=0)
    with ApiServer(tmp_path_factory.mktemp("console"), settings) as running:
        yield running


@pytest.fixture
def key(server: ApiServer) -> NewKey:
    return server.new_account(f"console {next(_names)}")


@pytest.fixture
def client(server: ApiServer, key: NewKey) -> Iterator[httpx.Client]:
    """The API, with the key that the visitor signs in with."""
    with server.client(key.api_key) as opened:
        yield opened


@pytest.fixture
def stranger(server: ApiServer) -> Iterator[Visitor]:
    """Nobody, yet."""
    with visiting(server) as visitor:
        yield visitor


@pytest.fixture
def visitor(server: ApiServer, key: NewKey) -> Iterator[Visitor]:
    """Somebody who is signed in."""
    with visiting(server) as signed_in:
        assert signed_in.sign_in(key.api_key).status_code == 303
        yield signed_in


@pytest.fixture
def teller(server: ApiServer) -> Teller:
    return Teller(server, f"console-{next(_names)}")


@pytest.fixture
def policy_id(client: httpx.Client) -> str:
    body = {
        "name": "ci",
        "allowed_hostnames": ["kept.example", "lost.example"],
        "allowed_cidrs": [{"cidr": "8.8.8.0/24"}],
    }
    return make_policy(client, **body)


@pytest.fixture
def devbox_id(client: httpx.Client, policy_id: str) -> str:
    return make_devbox(client, policy_id)
