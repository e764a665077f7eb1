"""Set elements of the table as netlink sees them: what a state holds, and what turns one state into the next. Pure.

The texts in :mod:`outgate.dataplane.ruleset` say the same for a whole table; a kernel test holds the two together.
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address
from typing import Final

from outgate.core.diff import PlanDiff, diff_plans
from outgate.dataplane.driver import DevboxLink, RouterState
from outgate.dataplane.nfnetlink import (
    BatchMessage,
    Element,
    JumpTo,
    add_elements,
    delete_elements,
    key_address,
    key_link,
    key_port,
    key_protocol,
    mark,
)
from outgate.dataplane.pin_elements import TABLE
from outgate.dataplane.ruleset import (
    DEVBOX_POLICY,
    HOST4,
    HOST6,
    HOST6TO4,
    LIVE,
    SOURCE4,
    SOURCE6,
    address_map,
    cidr_map,
    host_members,
    policy_chain,
)
from outgate.model.addresses import IPAddress
from outgate.model.plan import AddressCell, PolicyPlan, PortCell

_PROTOCOL_MAX: Final = 255
_HOST_SETS: Final = (HOST4, HOST6, HOST6TO4)
STATE_SETS: Final = (LIVE, SOURCE4, SOURCE6, DEVBOX_POLICY, *_HOST_SETS)
"""Sets that a state determines, besides the two maps of each policy."""


def port_element(cell: PortCell) -> Element:
    """A cell of a policy's ``cidr_N``."""
    protocol = key_protocol(cell.protocol)
    return Element(
        key=IPv4Address(cell.first).packed + protocol + key_port(cell.port_first),
        key_end=IPv4Address(cell.last).packed + protocol + key_port(cell.port_last),
        data=mark(cell.grant),
    )


def address_element(cell: AddressCell) -> Element:
    """A cell of a policy's ``net_N``."""
    return Element(
        key=IPv4Address(cell.first).packed + key_protocol(0),
        key_end=IPv4Address(cell.last).packed + key_protocol(_PROTOCOL_MAX),
        data=mark(cell.grant),
    )


def devbox_elements(devbox: DevboxLink) -> Mapping[str, Element]:
    """What a devbox has in each set."""
    link = key_link(devbox.link)
    elements = {
        SOURCE4: Element(link + devbox.address4.packed),
        DEVBOX_POLICY: Element(link, data=JumpTo(policy_chain(devbox.policy_number))),
    }
    if devbox.address6 is not None:
        elements[SOURCE6] = Element(link + devbox.address6.packed)
    return elements


def live_grants(plans: Iterable[PolicyPlan]) -> frozenset[int]:
    """Every grant that is in force."""
    return frozenset[int]().union(*(plan.live for plan in plans))


def set_elements(state: RouterState, name: str) -> frozenset[Element]:
    """What one of the sets or maps that a state determines holds. Raises KeyError for any other name."""
    if name == LIVE:
        return frozenset(Element(mark(grant)) for grant in live_grants(state.plans.values()))
    if name in _HOST_SETS:
        return frozenset(Element(key_address(address)) for address in host_members(state.host_addresses)[name])
    if name in STATE_SETS:
        held = (devbox_elements(devbox) for devbox in state.devboxes.values())
        return frozenset(elements[name] for elements in held if name in elements)
    plan = state.plans[int(name.rpartition("_")[2])]
    if name == cidr_map(plan.number):
        return frozenset(map(port_element, plan.port_cells))
    return frozenset(map(address_element, plan.address_cells))


def table_elements(state: RouterState) -> dict[str, frozenset[Element]]:
    """Every set and map that a state determines, with its elements."""
    policies = (name for number in state.plans for name in (cidr_map(number), address_map(number)))
    return {name: set_elements(state, name) for name in (*STATE_SETS, *policies)}


def change_policies(old: RouterState, new: RouterState) -> list[BatchMessage]:
    """Messages for plans and host addresses: removals before additions. Devboxes are not touched.

    The maps of policies that are new must be there, and those of removed policies are left as they are:
    they go as a whole when nobody uses them any more.
    """
    changed = [
        diff_plans(old.plans.get(number), plan)
        for number, plan in sorted(new.plans.items())
        if old.plans.get(number) != plan
    ]
    live_old, live_new = live_grants(old.plans.values()), live_grants(new.plans.values())
    return [
        *delete_elements(TABLE, LIVE, _grant_elements(live_old - live_new)),
        *(item for diff in changed for item in _removals(diff)),
        *(item for diff in changed for item in _additions(diff)),
        *add_elements(TABLE, LIVE, _grant_elements(live_new - live_old)),
        *_change_hosts(old.host_addresses, new.host_addresses),
    ]


def open_devboxes(devboxes: Iterable[DevboxLink]) -> list[BatchMessage]:
    """Messages that open the links of devboxes: from here on their policies decide."""
    return _by_set(devboxes, add_elements)


def close_devboxes(devboxes: Iterable[DevboxLink]) -> list[BatchMessage]:
    """Messages that close the links of devboxes: nothing of theirs passes any more."""
    return _by_set(devboxes, delete_elements)


def move_devboxes(old: Iterable[DevboxLink], new: Iterable[DevboxLink]) -> list[BatchMessage]:
    """Messages that put devboxes under another policy; the link stays open meanwhile."""
    return [
        *delete_elements(TABLE, DEVBOX_POLICY, (devbox_elements(devbox)[DEVBOX_POLICY] for devbox in old)),
        *add_elements(TABLE, DEVBOX_POLICY, (devbox_elements(devbox)[DEVBOX_POLICY] for devbox in new)),
    ]


def _by_set(
    devboxes: Iterable[DevboxLink], build: Callable[[str, str, Iterable[Element]], list[BatchMessage]]
) -> list[BatchMessage]:
    elements: dict[str, list[Element]] = {}
    for devbox in devboxes:
        for name, element in devbox_elements(devbox).items():
            elements.setdefault(name, []).append(element)
    return [item for name, listed in sorted(elements.items()) for item in build(TABLE, name, listed)]


def _grant_elements(grants: Iterable[int]) -> list[Element]:
    return [Element(mark(grant)) for grant in sorted(grants)]


def _removals(diff: PlanDiff) -> list[BatchMessage]:
    return [
        *delete_elements(TABLE, cidr_map(diff.number), map(port_element, diff.port_cells_removed)),
        *delete_elements(TABLE, address_map(diff.number), map(address_element, diff.address_cells_removed)),
    ]


def _additions(diff: PlanDiff) -> list[BatchMessage]:
    return [
        *add_elements(TABLE, cidr_map(diff.number), map(port_element, diff.port_cells_added)),
        *add_elements(TABLE, address_map(diff.number), map(address_element, diff.address_cells_added)),
    ]


def _change_hosts(old: frozenset[IPAddress], new: frozenset[IPAddress]) -> list[BatchMessage]:
    before, after = host_members(old), host_members(new)
    return [
        item
        for name in _HOST_SETS
        for build, held, others in (
            (delete_elements, before[name], frozenset(after[name])),
            (add_elements, after[name], frozenset(before[name])),
        )
        for item in build(TABLE, name, [Element(key_address(address)) for address in held if address not in others])
    ]
