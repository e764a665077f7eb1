"""A host without IPv6: devboxes have none either."""

import os
from collections.abc import Iterator

import pytest

from support.stage import Stage, attempt, open_stage, run
from support.world import ALLOWED, DENIED, populate

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shared_stage() -> Iterator[Stage]:
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests make network namespaces: run them as root")
    with open_stage(ipv6=False) as stage:
        populate(stage.internet)
        yield stage


@pytest.mark.parametrize(
    "egress", [{"allowed_hostnames": [ALLOWED.name]}, {"allow_all": True}], ids=["host", "allow_all"]
)
def test_without_ipv6_on_the_host_nothing_leaves_by_it(stage: Stage, egress: dict[str, object]) -> None:
    devbox = stage.devbox(stage.policy(**egress))
    addresses = run(devbox, "cat /proc/net/if_inet6 | grep -v ' lo$' | grep -v '^fe80' || true")
    assert addresses.stdout == ""
    since_s = stage.internet.now_s()
    lookup, by_name, *over_ipv6 = attempt(
        devbox,
        {"kind": "lookup", "name": ALLOWED.name},
        {"kind": "tls", "address": ALLOWED.address4, "port": 443, "name": ALLOWED.name},
        {"kind": "raw", "address": ALLOWED.address6, "port": 7},
        {"kind": "raw", "address": DENIED.address6, "port": 7},
        {"kind": "udp", "address": DENIED.address6, "port": 7},
    )
    assert ALLOWED.address4 in lookup.detail.split()
    assert by_name.is_answered
    assert not any(one.is_answered or one.outcome == "timeout" for one in over_ipv6)
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(ALLOWED.address6)
    assert not journal.reached(DENIED.address6)
