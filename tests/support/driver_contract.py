"""What every driver promises. Test modules derive from :class:`DriverContract` and give a ``driver`` fixture."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from outgate.dataplane.driver import Driver, RouterState, link_devbox
from outgate.dataplane.layout import NetworkLayout
from outgate.errors import InvalidValueError
from outgate.model.addresses import Protocol
from outgate.model.plan import PolicyPlan, PortCell, grant_of_allow_all


def plan(number: int, *grants: int) -> PolicyPlan:
    """A plan with one cell per grant."""
    base = int(IPv4Address("45.45.46.0"))
    cells = tuple(PortCell(base + grant, base + grant, Protocol.TCP, 443, 443, grant) for grant in grants)
    return PolicyPlan(number, grant_of_allow_all(number), frozenset(grants), cells, ())


def state(layout: NetworkLayout, plans: Iterable[PolicyPlan], boxes: dict[int, int]) -> RouterState:
    """A state with devboxes by slot and their policy numbers."""
    devboxes = [link_devbox(layout, slot, f"dbx_{slot}", number) for slot, number in boxes.items()]
    return RouterState(
        {each.number: each for each in plans},
        {devbox.devbox_id: devbox for devbox in devboxes},
        frozenset({ip_address("45.45.45.1")}),
    )


class DriverContract:
    """The promises, as tests."""

    def test_a_router_may_be_ensured_twice(self, driver: Driver) -> None:
        assert driver.ensure_router() == driver.ensure_router()

    def test_the_first_set_replaces_and_later_ones_do_not(self, driver: Driver) -> None:
        layout = driver.ensure_router()
        wanted = state(layout, [plan(16, 20)], {0: 16})

        first, second = driver.set(wanted), driver.set(wanted)

        assert (first.is_replaced, second.is_replaced) == (True, False)
        assert first.failures == second.failures == {}
        assert first.revoked_grants == second.revoked_grants == frozenset()
        assert driver.observe_drift() == ()
        assert driver.observe_obstacles() == ()

    def test_grants_that_end_are_named(self, driver: Driver) -> None:
        layout = driver.ensure_router()
        driver.set(state(layout, [plan(16, 20, 21), plan(17, 30)], {0: 16, 1: 17}))

        assert driver.set(state(layout, [plan(16, 21, 22), plan(17, 30)], {0: 16, 1: 17})).revoked_grants == {20}
        assert driver.set(state(layout, [plan(16, 21, 22)], {0: 16})).revoked_grants == {30}
        assert driver.set(state(layout, [], {})).revoked_grants == {21, 22}

    def test_without_flows_there_is_nothing_to_abort(self, driver: Driver) -> None:
        layout = driver.ensure_router()
        driver.set(state(layout, [plan(16, 20)], {0: 16}))

        assert driver.abort_revoked({20, 21}, {"dbx_0", "dbx_unknown"}) == 0
        assert driver.abort_revoked(set(), set()) == 0

    def test_a_state_that_makes_no_sense_changes_nothing(self, driver: Driver) -> None:
        layout = driver.ensure_router()
        good = state(layout, [plan(16, 20)], {0: 16})
        driver.set(good)
        box = good.devboxes["dbx_0"]
        bad = [
            replace(good, devboxes={"dbx_0": replace(box, policy_number=99)}),
            replace(good, devboxes={"dbx_0": box, "dbx_x": replace(box, devbox_id="dbx_x")}),
            replace(good, devboxes={"dbx_other": box}),
            replace(good, devboxes={"dbx_0": replace(box, slot=layout.slots_max)}),
            replace(good, devboxes={"dbx_0": replace(box, link="eth0")}),
            replace(good, devboxes={"dbx_0": replace(box, address4=IPv4Address("9.9.9.9"))}),
            replace(good, plans={17: plan(16, 20)}),
        ]
        for each in bad:
            with pytest.raises(InvalidValueError):
                driver.set(each)

        assert driver.set(good).revoked_grants == frozenset()
        assert driver.observe_drift() == ()

    def test_devboxes_come_move_and_go(self, driver: Driver) -> None:
        layout = driver.ensure_router()
        plans = [plan(16, 20), plan(17, 30)]
        for boxes in ({0: 16}, {0: 16, 1: 17}, {0: 17, 1: 16}, {1: 16}, {}, {0: 16, 1: 16, 2: 17}):
            applied = driver.set(state(layout, plans, boxes))
            assert applied.failures == {}
            assert driver.observe_drift() == ()

    def test_a_new_router_has_no_pins_and_no_denials(self, driver: Driver) -> None:
        layout = driver.ensure_router()
        driver.set(state(layout, [plan(16, 20)], {0: 16}))

        assert driver.pins() == ()
        denials = driver.denials()
        assert denials.read() == ()
        assert denials.lost == 0
        assert denials.fileno() >= 0
        denials.close()

    def test_teardown_may_come_at_any_time_and_twice(self, driver: Driver) -> None:
        driver.teardown()
        layout = driver.ensure_router()
        driver.set(state(layout, [plan(16, 20)], {0: 16}))
        driver.teardown()
        driver.teardown()

        assert driver.set(state(layout, [plan(16, 20)], {0: 16})).is_replaced
