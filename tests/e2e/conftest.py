"""One server and one internet per test module; each test's policies and devboxes go away after it."""

import os
from collections.abc import Generator, Iterator

import pytest

from support.stage import Stage, open_stage
from support.world import MIRRORS, populate


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests make network namespaces: run them as root")
    with open_stage(environment={"OUTGATE_MIRROR_HOSTS": ",".join(MIRRORS)}) as stage:
        populate(stage.internet)
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    yield shared_stage
    shared_stage.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows the end of the server's log."""
    report = yield
    stage = getattr(item, "funcargs", {}).get("shared_stage")
    if report.failed and isinstance(stage, Stage):
        report.sections.append(("outgate serve", stage.daemon.log_tail(25)))
    return report
