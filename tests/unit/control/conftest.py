from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.control.configuration import ApiSettings
from outgate.control.services import Services
from support.api_server import FakeGateway, open_database


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_database(f"sqlite:///{tmp_path / 'outgate.db'}") as database:
        yield Services(ApiSettings(), database, FakeGateway())
