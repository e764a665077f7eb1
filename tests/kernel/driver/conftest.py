from collections.abc import Iterator

import pytest

from support.driver_world import World, make_world


@pytest.fixture
def world() -> Iterator[World]:
    with make_world() as made:
        yield made
