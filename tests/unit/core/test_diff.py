"""What changes between two plans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.compile import compile_policy
from outgate.core.diff import PlanDiff, diff_plans
from outgate.model.plan import AddressCell, PolicyPlan, PortCell, grant_of_allow_all
from support.policies import make_policy
from support.strategies import cidr_rules, make_policy_of

EMPTY = PlanDiff(16, (), (), (), (), (), ())


def plan_of(*rules: str, grants: tuple[int, ...] = (), allow_all: bool = False) -> PolicyPlan:
    return compile_policy(make_policy(cidrs=rules, allow_all=allow_all), grants)


def test_a_new_policy_adds_everything() -> None:
    plan = plan_of("8.0.0.0/8", grants=(100,))
    assert diff_plans(None, plan) == PlanDiff(16, (100,), (), plan.port_cells, (), plan.address_cells, ())


def test_a_policy_that_goes_removes_everything() -> None:
    plan = plan_of("8.0.0.0/8", grants=(100,))
    assert diff_plans(plan, None) == PlanDiff(16, (), (100,), (), plan.port_cells, (), plan.address_cells)


def test_equal_plans_change_nothing() -> None:
    plan = plan_of("8.0.0.0/8 tcp/1", "9.0.0.0/8", grants=(100, 101))
    assert diff_plans(plan, plan) == EMPTY
    assert diff_plans(plan, plan).is_empty


def test_a_rule_that_stays_is_not_touched() -> None:
    old = plan_of("8.0.0.0/8 tcp/1", "9.0.0.0/8 tcp/1", grants=(100, 101))
    new = plan_of("9.0.0.0/8 tcp/1", "11.0.0.0/8 tcp/1", grants=(101, 102))
    change = diff_plans(old, new)
    assert (change.live_added, change.live_removed) == ((102,), (100,))
    assert [cell.grant for cell in change.port_cells_added] == [102]
    assert [cell.grant for cell in change.port_cells_removed] == [100]
    assert not change.is_empty


def test_allow_all_swaps_the_grants_and_takes_all_cells() -> None:
    old = plan_of("8.0.0.0/8", grants=(100,))
    new = plan_of("8.0.0.0/8", grants=(100,), allow_all=True)
    change = diff_plans(old, new)
    assert (change.live_added, change.live_removed) == ((grant_of_allow_all(16),), (100,))
    assert (change.port_cells_removed, change.address_cells_removed) == (old.port_cells, old.address_cells)


CELL = plan_of("8.0.0.0/8", grants=(100,))
SINGLE_CHANGES: dict[str, PlanDiff] = {
    "live added": PlanDiff(16, (1,), (), (), (), (), ()),
    "live removed": PlanDiff(16, (), (1,), (), (), (), ()),
    "port cell added": PlanDiff(16, (), (), CELL.port_cells, (), (), ()),
    "port cell removed": PlanDiff(16, (), (), (), CELL.port_cells, (), ()),
    "address cell added": PlanDiff(16, (), (), (), (), CELL.address_cells, ()),
    "address cell removed": PlanDiff(16, (), (), (), (), (), CELL.address_cells),
}


@pytest.mark.parametrize("change", SINGLE_CHANGES.values(), ids=SINGLE_CHANGES.keys())
def test_each_kind_of_change_counts_as_one(change: PlanDiff) -> None:
    assert not change.is_empty


def test_plans_of_different_policies_have_no_difference() -> None:
    other = compile_policy(make_policy(number=17), ())
    with pytest.raises(ValueError, match=r"two plans of one policy, not of \[16, 17\]"):
        diff_plans(plan_of(), other)


def test_no_plan_at_all_has_no_difference() -> None:
    with pytest.raises(ValueError, match="two plans of one policy, not of none"):
        diff_plans(None, None)


plans = st.lists(cidr_rules, max_size=4).map(
    lambda rules: compile_policy(make_policy_of((), rules), tuple(range(100, 100 + len(rules))))
)


@given(plans, plans)
def test_applying_the_difference_gives_the_new_plan(old: PolicyPlan, new: PolicyPlan) -> None:
    change = diff_plans(old, new)
    ports: set[PortCell] = set(old.port_cells)
    addresses: set[AddressCell] = set(old.address_cells)
    # What is removed was there, what is added was not: an element command of the kernel fails otherwise.
    assert ports.issuperset(change.port_cells_removed)
    assert ports.isdisjoint(change.port_cells_added)
    assert addresses.issuperset(change.address_cells_removed)
    assert addresses.isdisjoint(change.address_cells_added)
    assert old.live.issuperset(change.live_removed)
    assert old.live.isdisjoint(change.live_added)
    assert tuple(sorted(ports - {*change.port_cells_removed} | {*change.port_cells_added})) == new.port_cells
    left = addresses - {*change.address_cells_removed} | {*change.address_cells_added}
    assert tuple(sorted(left)) == new.address_cells
    assert old.live - {*change.live_removed} | {*change.live_added} == new.live
    assert change.is_empty is (old == new)
