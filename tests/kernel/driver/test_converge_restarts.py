"""Policies on the real kernel: the same table whatever came before, and whoever takes over from whom."""

from random import Random

import pytest

from outgate.agent.target import Placement, Target, prepare_enforcement, router_state
from outgate.dataplane.driver import RouterState
from outgate.model.desired import PolicyDocument
from outgate.model.flow import HostContext
from support.agent_world import make_document
from support.driver_world import World
from support.kernel_text import observe_text

pytestmark = pytest.mark.kernel

OTHER = make_document("npol_2", hosts=("*.b.example",), cidrs=("47.1.2.3/32",))
UPDATES = (
    make_document("npol_1", hosts=("a.example",)),
    make_document("npol_1", revision=2, cidrs=("45.0.0.0/24", "46.0.0.0/8")),
    make_document("npol_1", revision=3, cidrs=("45.0.0.0/25", "45.0.0.0/24", "0.0.0.0/0")),
    make_document("npol_1", revision=4, allow_all=True),
)
WALK = 12


def state_of(world: World, document: PolicyDocument, *, is_swapped: bool) -> RouterState:
    policies = {each.id: prepare_enforcement(each, HostContext()) for each in (document, OTHER)}
    slots = (1, 0) if is_swapped else (0, 1)
    placements = {
        name: Placement(name, "acc_1", policy_id, slot)
        for name, policy_id, slot in (("a", "npol_1", slots[0]), ("b", "npol_2", slots[1]))
    }
    return router_state(Target(1, policies, placements), world.layout)


def test_updates_in_any_order_and_with_restarts_between_give_the_same_table(world: World) -> None:
    states = [state_of(world, document, is_swapped=is_swapped) for document in UPDATES for is_swapped in (False, True)]
    expected = []
    for state in states:
        world.driver().set(state)
        expected.append(observe_text(world.layout))
    random = Random(7)
    driver = world.driver()
    for _ in range(WALK):
        number = random.randrange(len(states))
        if random.random() < 0.3:
            driver = world.driver()
        driver.set(states[number])
        assert observe_text(world.layout) == expected[number]
        assert driver.observe_drift() == ()
