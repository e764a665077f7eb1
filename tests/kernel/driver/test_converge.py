"""Every way to a state ends in the same table: the one a fresh driver writes for it."""

import random
import subprocess

import pytest

from outgate.dataplane import netns
from outgate.dataplane.driver import RouterState
from outgate.model.addresses import Protocol
from outgate.model.plan import PolicyPlan, grant_of_allow_all
from support.driver_world import World, cidr_plan, everything_plan
from support.kernel_text import observe_text

pytestmark = pytest.mark.kernel


def empty_plan(number: int) -> PolicyPlan:
    return PolicyPlan(number, grant_of_allow_all(number), frozenset(), (), ())


def states(world: World) -> list[RouterState]:
    small = cidr_plan(16, ("45.45.46.0/24", 20, None, 1, 65535))
    nested = cidr_plan(
        16,
        ("45.45.46.0/25", 21, None, 1, 65535),
        ("45.45.46.128/25", 22, Protocol.TCP, 443, 443),
        ("45.45.46.128/25", 23, Protocol.TCP, 444, 65535),
    )
    regranted = cidr_plan(16, ("45.45.46.0/24", 24, None, 1, 65535))
    single = cidr_plan(17, ("45.45.47.1/32", 30, Protocol.UDP, 53, 53))
    many = cidr_plan(18, *((f"46.{i}.0.0/16", 1000 + i, Protocol.TCP, 1, 1000 + i) for i in range(200)))
    edges = cidr_plan(19, ("255.255.255.255/32", 40, None, 1, 65535), ("0.0.0.0/1", 41, Protocol.TCP, 65535, 65535))
    return [
        RouterState(),
        world.state(small, boxes={0: 16}),
        world.state(nested, single, boxes={0: 16, 1: 17}),
        world.state(regranted, single, boxes={0: 16, 1: 16, 2: 17}),
        world.state(everything_plan(16), many, boxes={1: 16, 3: 18}),
        world.state(empty_plan(16), many, edges, boxes={0: 19}),
        world.state(small, single, many, edges, boxes={0: 16, 1: 17, 2: 18, 3: 19}),
    ]


def test_states_in_order_and_in_random_order_give_the_same_table(world: World) -> None:
    wanted = states(world)
    fresh: list[list[str]] = []
    for state in wanted:
        driver = world.driver()
        driver.set(state)
        assert driver.observe_drift() == ()
        fresh.append(observe_text(world.layout))
    generator = random.Random(4)
    driver = world.driver()
    walk = [*range(len(wanted)), *(generator.randrange(len(wanted)) for _ in range(25))]
    for place in walk:
        driver.set(wanted[place])
        assert observe_text(world.layout) == fresh[place], f"state {place} after {walk}"
        assert driver.observe_drift() == ()


def test_setting_a_state_again_touches_nothing(world: World) -> None:
    state = states(world)[-1]
    driver = world.driver()
    driver.set(state)
    with netns.entered(world.layout.router_namespace):
        before = subprocess.run(["nft", "-a", "list", "ruleset"], check=True, capture_output=True).stdout

    driver.set(state)

    with netns.entered(world.layout.router_namespace):
        assert subprocess.run(["nft", "-a", "list", "ruleset"], check=True, capture_output=True).stdout == before
