from collections.abc import Iterator

import pytest

from support.local_terminals import LocalRuntime
from support.terminal_world import TerminalWorld, open_terminal_world


@pytest.fixture(scope="module")
def whole_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TerminalWorld, LocalRuntime]]:
    directory = tmp_path_factory.mktemp("world")
    home = directory / "home"
    home.mkdir()
    runtime = LocalRuntime(home)
    with open_terminal_world(directory, runtime) as world:
        yield world, runtime
    runtime.close()


@pytest.fixture
def world(whole_world: tuple[TerminalWorld, LocalRuntime], runtime: LocalRuntime) -> TerminalWorld:
    """One for all tests of a module; each makes devboxes of its own."""
    world, _ = whole_world
    world.dials.asked.clear()
    return world


@pytest.fixture
def runtime(whole_world: tuple[TerminalWorld, LocalRuntime]) -> Iterator[LocalRuntime]:
    """The world's, with nothing of an earlier test in it."""
    _, runtime = whole_world
    yield runtime
    runtime.close()
    runtime.running.clear()
    runtime.specs.clear()
    runtime.stopped.clear()
