"""What the operator lists behind a policy's flag: open while the flag is on, closed at once when it is not."""

import pytest

from support.stage import Stage, attempt
from support.world import ALSO, DENIED, IN_NETWORK_A, IN_NETWORK_B

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

WAIT_S = 2.0


def _raw(address: str) -> dict[str, object]:
    return {"kind": "raw", "address": address, "port": 7, "wait_s": WAIT_S}


def _lookup(name: str) -> dict[str, object]:
    return {"kind": "lookup", "name": name}


def test_mirrors_are_open_while_their_flag_is_on(stage: Stage) -> None:
    policy = stage.policy(allow_runloop_mirrors=True)
    devbox = stage.devbox(policy)
    tried = attempt(devbox, _lookup(ALSO.name), _lookup(DENIED.name), _raw(IN_NETWORK_B), _raw(IN_NETWORK_A))
    assert [one.is_answered for one in tried] == [True, False, True, False]

    policy.update(allow_runloop_mirrors=False)
    tried = attempt(devbox, _lookup(ALSO.name), _raw(IN_NETWORK_B))
    assert [one.is_answered for one in tried] == [False, False]

    policy.update(allow_runloop_mirrors=True)
    assert attempt(devbox, _raw(IN_NETWORK_B))[0].is_answered
