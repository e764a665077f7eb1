"""One set of namespaces and one relay for all tests of the folder; each test gets a fresh policy and forgets flows."""

from collections.abc import Iterator

import pytest

from kernel.relay.rig import BOXES, DEVBOX, OTHER_DEVBOX, OTHER_POLICY, SERVER4, Net, Router, policy, running


@pytest.fixture(scope="session")
def _lab() -> Iterator[tuple[Net, Router]]:
    with running() as lab:
        yield lab


@pytest.fixture
def net(_lab: tuple[Net, Router]) -> Net:
    return _lab[0]


@pytest.fixture
def router(_lab: tuple[Net, Router]) -> Iterator[Router]:
    """The relay; a.test and b.test are allowed, a.test is known to be at SERVER4."""
    router = _lab[1]
    router.apply(policy("a.test", "b.test"), policy("a.test", policy_id=OTHER_POLICY), boxes=BOXES)
    router.names.asked.clear()
    router.teach("a.test", SERVER4)
    yield router
    for devbox in (DEVBOX, OTHER_DEVBOX):
        router.forget(devbox)
    router.names.known.clear()
    router.take_records()
    assert not router.errors, router.errors
