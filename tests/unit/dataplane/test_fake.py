from ipaddress import ip_address

import pytest

from outgate.dataplane.driver import Denial, DriverError
from outgate.dataplane.fake import FakeDriver
from outgate.dataplane.layout import choose_layout
from outgate.dataplane.pin_elements import Pin
from support.driver_contract import DriverContract, plan, state

LAYOUT = choose_layout("abc123", ())


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(LAYOUT)


class TestFakeDriver(DriverContract):
    pass


def test_flows_open_under_live_grants_and_end_with_them(driver: FakeDriver) -> None:
    driver.set(state(LAYOUT, [plan(16, 20, 21)], {0: 16}))
    driver.open_flow("dbx_0", 20)
    driver.open_flow("dbx_0", 21)
    with pytest.raises(DriverError):
        driver.open_flow("dbx_0", 22)

    revoked = driver.set(state(LAYOUT, [plan(16, 21)], {0: 16})).revoked_grants

    assert driver.abort_revoked(revoked, {"dbx_0"}) == 1
    assert [flow.grant for flow in driver.flows] == [21]


def test_a_slots_next_devbox_inherits_no_pins(driver: FakeDriver) -> None:
    driver.set(state(LAYOUT, [plan(16, 20)], {0: 16, 1: 16}))
    for slot in (0, 1):
        driver.add_pin(Pin(LAYOUT.link(slot), ip_address("45.45.46.1"), 1000))

    driver.set(state(LAYOUT, [plan(16, 20)], {0: 16}))

    assert [pin.link for pin in driver.pins()] == ["og0"]


def test_a_refused_link_is_told_and_tried_again(driver: FakeDriver) -> None:
    driver.refuse_links.add("dbx_0")
    wanted = state(LAYOUT, [plan(16, 20)], {0: 16, 1: 16})

    assert set(driver.set(wanted).failures) == {"dbx_0"}
    assert set(driver.state.devboxes) == {"dbx_1"}
    driver.refuse_links.clear()
    assert driver.set(wanted).failures == {}
    assert set(driver.state.devboxes) == {"dbx_0", "dbx_1"}


def test_drift_is_told_until_the_next_set(driver: FakeDriver) -> None:
    wanted = state(LAYOUT, [plan(16, 20)], {0: 16})
    driver.set(wanted)
    driver.damage("Chain judge was changed.")

    assert driver.observe_drift() == ("Chain judge was changed.",)
    assert driver.set(wanted).is_replaced
    assert driver.observe_drift() == ()


def test_a_kernel_that_refuses_keeps_the_old_state(driver: FakeDriver) -> None:
    before = state(LAYOUT, [plan(16, 20)], {0: 16})
    driver.set(before)
    driver.refuse_with = "No buffer space."

    with pytest.raises(DriverError, match="No buffer space"):
        driver.set(state(LAYOUT, [], {}))
    assert driver.state == before


def test_denials_wake_their_reader(driver: FakeDriver) -> None:
    denials = driver.denials()
    denial = Denial("og0", LAYOUT.address4(0), ip_address("45.45.47.1"), 6, 4000, 443)
    driver.deny(denial)

    assert denials.read() == (denial,)
    assert denials.read() == ()
    assert driver.denied_packets() == {"og0": 1}
    denials.close()
    denials.close()
