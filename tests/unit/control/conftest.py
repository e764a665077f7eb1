from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.control.services import Services
from support.api_server import FakeGateway, make_services, open_database


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_database(f"sqlite:///{tmp_path / 'outgate.db'}") as database:
        yield make_services(tmp_path, database, FakeGateway())
