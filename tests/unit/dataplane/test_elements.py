"""Changes applied to the old state's elements give the new state's elements, for any two states."""

from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

from hypothesis import given
from hypothesis import strategies as st

from outgate.dataplane.driver import RouterState, link_devbox
from outgate.dataplane.elements import (
    change_policies,
    close_devboxes,
    move_devboxes,
    open_devboxes,
    table_elements,
)
from outgate.dataplane.layout import choose_layout
from outgate.dataplane.netlink import parse_attributes
from outgate.dataplane.nfnetlink import BatchMessage, Element, parse_elements
from outgate.dataplane.ruleset import DEVBOX_POLICY, SOURCE4, SOURCE6
from outgate.model.addresses import Protocol
from outgate.model.plan import AddressCell, PolicyPlan, PortCell, grant_of_allow_all

LAYOUT = choose_layout("abc123", ())
DELETE = 14
BASE = int(IPv4Address("45.45.46.0"))


def make_plan(number: int, cells: frozenset[tuple[int, int]]) -> PolicyPlan:
    ports = tuple(
        PortCell(BASE + place, BASE + place, Protocol.TCP, 1, 443, 1000 * number + grant) for place, grant in cells
    )
    others = tuple(AddressCell(BASE + place, BASE + place, 1000 * number + grant) for place, grant in cells)
    return PolicyPlan(number, grant_of_allow_all(number), frozenset(cell.grant for cell in ports), ports, others)


CELLS = st.dictionaries(st.integers(0, 5), st.integers(0, 3), max_size=4).map(lambda d: frozenset(d.items()))
STATES = st.builds(
    lambda plans, boxes, hosts: RouterState(
        {number: make_plan(number, cells) for number, cells in plans.items()},
        {f"dbx_{slot}": link_devbox(LAYOUT, slot, f"dbx_{slot}", 16) for slot in boxes},
        frozenset(map(ip_address, hosts)),
    ),
    st.dictionaries(st.integers(16, 19), CELLS),
    st.sets(st.integers(0, 4)),
    st.sets(st.sampled_from(["45.45.45.1", "45.45.45.2", "2a0f::1"])),
)


def apply(sets: dict[str, frozenset[Element]], messages: Iterable[BatchMessage]) -> None:
    """What the kernel does with a batch: deleting what is not there or adding what is there another way fails."""
    for item in messages:
        name = parse_attributes(item.body)[2].rstrip(b"\0").decode()
        held = {element.key: element for element in sets.get(name, frozenset())}
        for element in parse_elements(bytes(4) + item.body):
            if item.operation == DELETE:
                del held[element.key]
            else:
                assert held.setdefault(element.key, element) == element
        sets[name] = frozenset(held.values())


@given(STATES, STATES)
def test_changes_lead_from_any_state_to_any_other(old: RouterState, new: RouterState) -> None:
    sets = table_elements(old)
    gone = [box for name, box in old.devboxes.items() if name not in new.devboxes]
    come = [box for name, box in new.devboxes.items() if name not in old.devboxes]

    apply(sets, [*close_devboxes(gone), *change_policies(old, new), *open_devboxes(come)])

    wanted = table_elements(new)
    assert {name: sets.get(name, frozenset()) for name in wanted} == wanted


@given(STATES)
def test_no_change_is_no_message(state: RouterState) -> None:
    assert change_policies(state, state) == []


def test_a_move_touches_the_policy_alone() -> None:
    old, new = link_devbox(LAYOUT, 0, "dbx_0", 16), link_devbox(LAYOUT, 0, "dbx_0", 17)
    touched = {parse_attributes(item.body)[2].rstrip(b"\0").decode() for item in move_devboxes([old], [new])}
    assert touched == {DEVBOX_POLICY}


def test_a_devbox_without_ipv6_has_no_ipv6_source() -> None:
    box = link_devbox(choose_layout("abc123", (), has_ipv6=False), 0, "dbx_0", 16)
    touched = {parse_attributes(item.body)[2].rstrip(b"\0").decode() for item in open_devboxes([box])}
    assert touched == {DEVBOX_POLICY, SOURCE4}
    assert SOURCE6 not in touched
