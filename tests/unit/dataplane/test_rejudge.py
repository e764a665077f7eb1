from ipaddress import IPv4Address, ip_address

import pytest

from outgate.dataplane.conntrack import TrackedFlow
from outgate.dataplane.rejudge import is_allowed_again
from outgate.model.addresses import Protocol
from outgate.model.plan import GRANT_ALL_BIT, PolicyPlan, PortCell, grant_of_allow_all, grant_of_report

FIRST, LAST = int(IPv4Address("45.45.46.0")), int(IPv4Address("45.45.46.255"))
CELLS = PolicyPlan(
    16,
    grant_of_allow_all(16),
    frozenset({20}),
    (PortCell(FIRST, LAST, Protocol.TCP, 443, 444, 20), PortCell(FIRST, LAST, Protocol.UDP, 1, 65535, 20)),
    (),
)
EVERYTHING = PolicyPlan(16, grant_of_allow_all(16), frozenset({grant_of_allow_all(16)}), (), ())
REPORTING = PolicyPlan(16, grant_of_allow_all(16), frozenset({grant_of_report(16)}), (), ())
NOTHING = PolicyPlan(16, grant_of_allow_all(16), frozenset(), (), ())


def flow(address: str, port: int, mark: int = 19) -> TrackedFlow:
    target = ip_address(address)
    source = ip_address("10.213.0.2" if target.version == 4 else "fd00::2")
    return TrackedFlow(source, target, Protocol.TCP, 40000, port, mark)


@pytest.mark.parametrize(
    ("plan", "judged", "lives"),
    [
        (CELLS, flow("45.45.46.0", 443), True),
        (CELLS, flow("45.45.46.255", 444), True),
        (CELLS, flow("45.45.46.1", 445), False),
        (CELLS, flow("45.45.46.1", 442), False),
        (CELLS, flow("45.45.47.0", 443), False),
        (CELLS, flow("2a0f::1", 443), False),
        (CELLS, flow("45.45.46.1", 443, GRANT_ALL_BIT | 16), False),
        (EVERYTHING, flow("45.45.47.0", 80), True),
        (EVERYTHING, flow("2a0f::1", 80), True),
        (EVERYTHING, flow("2a0f::1", 80, GRANT_ALL_BIT | 17), False),
        (EVERYTHING, flow("45.45.45.1", 80), False),
        (EVERYTHING, flow("64:ff9b::2d2d:2d01", 80), False),
        (EVERYTHING, flow("2002:2d2d:2d01::7", 80), False),
        (EVERYTHING, flow("2002:2d2d:2d02::7", 80), True),
        (NOTHING, flow("45.45.46.1", 443), False),
        (NOTHING, flow("45.45.46.1", 443, grant_of_report(16)), False),
        (CELLS, flow("45.45.46.1", 443, grant_of_report(16)), True),
        (REPORTING, flow("45.45.46.1", 443), True),
        (REPORTING, flow("2a0f::1", 80), True),
        (REPORTING, flow("10.1.2.3", 80), False),
        (REPORTING, flow("fd00::3", 80), False),
        (REPORTING, flow("64:ff9b::a01:203", 80), False),
        (REPORTING, flow("45.45.45.1", 80), False),
        (REPORTING, flow("45.45.46.1", 443, GRANT_ALL_BIT | 16), False),
    ],
)
def test_a_flow_lives_on_only_under_a_rule_that_covers_it(plan: PolicyPlan, judged: TrackedFlow, lives: bool) -> None:
    assert is_allowed_again(judged, plan, frozenset({ip_address("45.45.45.1")})) is lives
