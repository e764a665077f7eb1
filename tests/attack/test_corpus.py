"""Every case of the corpus, on Outgate, as root in the box and as a normal user: each is stopped and its twin works."""

from collections.abc import Iterator

import pytest

from attack.case import Case
from attack.corpus import whole
from attack.runner import Result, attempt
from attack.scene import Running, Who
from attack.systems import outgate
from outgate.cli.demo.internet import Internet

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

Opened = tuple[Running, Internet]


@pytest.fixture(scope="module")
def system() -> Iterator[Opened]:
    with outgate.opened() as opened:
        yield opened


# Root in the box may do whatever a user may, so what root cannot is tried at each run of the tests; both by `make attack`
# and `make test-all`.
@pytest.mark.parametrize("who", [Who.ROOT, pytest.param(Who.USER, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", whole(), ids=lambda case: case.name)
def test_is_stopped(case: Case, who: Who, system: Opened) -> None:
    if not case.needs <= outgate.ABILITIES:
        pytest.skip(f"needs {', '.join(sorted(case.needs - outgate.ABILITIES))}")
    tried = attempt(case, *system, who)
    assert tried.result is Result.STOPPED, "\n".join((case.story, *tried.told))
