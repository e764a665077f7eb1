"""Every case of the corpus gets through where nothing filters: that is what makes it an attack."""

from collections.abc import Iterator

import pytest

from attack.case import Case
from attack.corpus import whole
from attack.runner import Result, attempt
from attack.scene import Running, Who
from attack.systems import open as unfiltered
from outgate.cli.demo.internet import Internet

# Two minutes of them, and they depend on the cases alone: not in every run of the tests.
pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(180)]

Opened = tuple[Running, Internet]


@pytest.fixture(scope="module")
def system() -> Iterator[Opened]:
    with unfiltered.opened() as opened:
        yield opened


@pytest.mark.parametrize(
    "case", [case for case in whole() if case.needs <= unfiltered.ABILITIES], ids=lambda case: case.name
)
def test_gets_through_where_nothing_filters(case: Case, system: Opened) -> None:
    expected = Result.STOPPED if case.closed_in_the_open else Result.GOT_THROUGH
    tried = attempt(case, *system, Who.ROOT)
    assert tried.result is expected, "\n".join((case.story, case.closed_in_the_open or "", *tried.told))
