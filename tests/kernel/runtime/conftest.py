from collections.abc import Iterator
from pathlib import Path

import pytest

from support.sandbox_lab import Lab, open_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A runtime without sandboxes."""
    with open_lab(tmp_path / "state") as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A runtime with the sandbox ``dbx_1``, for tests that leave it as it was."""
    with open_lab(tmp_path_factory.mktemp("lab")) as made:
        made.start()
        yield made
