"""How many names a wildcard may give a devbox in an hour."""

import pytest

from outgate.core.wildcard_budget import NAMES_PER_DEVBOX_MAX, NAMES_PER_WILDCARD_MAX, WINDOW_S, WildcardBudget
from outgate.model.names import DomainName, parse_domain_name
from outgate.model.verdict import Deny, DenyReason, RuleRef
from support.policies import make_policy, prepare

POLICY = prepare(make_policy("*.example.com", "*.example.org", "exact.example.com"))


def name(text: str) -> DomainName:
    return parse_domain_name(text)


def spend_many(budget: WildcardBudget, count: int, now_s: float = 0.0, domain: str = "example.com") -> None:
    for i in range(count):
        assert budget.spend("dbx_1", POLICY, name(f"n{i}.{domain}"), now_s) is None


@pytest.fixture
def spent() -> WildcardBudget:
    budget = WildcardBudget()
    spend_many(budget, NAMES_PER_WILDCARD_MAX)
    return budget


def test_the_budget_is_256_names_an_hour() -> None:
    assert (NAMES_PER_WILDCARD_MAX, WINDOW_S) == (256, 3600.0)


def test_one_name_more_is_denied_with_the_wildcard_and_what_to_do(spent: WildcardBudget) -> None:
    assert spent.spend("dbx_1", POLICY, name("new.example.com"), 1.0) == Deny(
        DenyReason.WILDCARD_BUDGET,
        "new.example.com would be one name too many: allowed_hostnames[0] *.example.com of policy 'ci' (npol_1) gave "
        "this devbox as many names in the last hour as wildcards may. "
        "List the names it needs one by one in allowed_hostnames.",
        RuleRef("allowed_hostnames", 0, "*.example.com"),
    )


def test_a_name_already_given_is_free(spent: WildcardBudget) -> None:
    assert spent.spend("dbx_1", POLICY, name("n0.example.com"), 1.0) is None


def test_another_wildcard_has_a_budget_of_its_own(spent: WildcardBudget) -> None:
    assert spent.spend("dbx_1", POLICY, name("new.example.org"), 1.0) is None


def test_another_devbox_has_a_budget_of_its_own(spent: WildcardBudget) -> None:
    assert spent.spend("dbx_2", POLICY, name("new.example.com"), 1.0) is None


def test_an_exact_entry_costs_nothing(spent: WildcardBudget) -> None:
    assert spent.spend("dbx_1", POLICY, name("exact.example.com"), 1.0) is None
    assert spent.spend("dbx_1", POLICY, name("new.example.com"), 1.0) is not None


def test_names_that_no_rule_covers_and_allow_all_are_not_its_business(spent: WildcardBudget) -> None:
    assert spent.spend("dbx_1", POLICY, name("evil.example"), 1.0) is None
    everything = prepare(make_policy("*.example.com", allow_all=True))
    assert spent.spend("dbx_1", everything, name("new.example.com"), 1.0) is None
    assert spent.spend("dbx_1", POLICY, name("new.example.com"), 1.0) is not None


def test_a_denied_name_is_not_charged(spent: WildcardBudget) -> None:
    assert spent.spend("dbx_1", POLICY, name("new.example.com"), WINDOW_S - 1) is not None
    assert spent.spend("dbx_1", POLICY, name("new.example.com"), WINDOW_S) is None


def test_an_hour_later_the_names_may_be_others() -> None:
    budget = WildcardBudget()
    spend_many(budget, 1, now_s=0.0)
    spend_many(budget, NAMES_PER_WILDCARD_MAX, now_s=10.0)
    assert budget.spend("dbx_1", POLICY, name("new.example.com"), WINDOW_S - 0.1) is not None
    # The first name was charged at 0 and not again at 10: its hour is over now, the others' is not.
    assert budget.spend("dbx_1", POLICY, name("new.example.com"), WINDOW_S) is None
    assert budget.spend("dbx_1", POLICY, name("newer.example.com"), WINDOW_S) is not None
    assert budget.spend("dbx_1", POLICY, name("newer.example.com"), WINDOW_S + 10.0) is None


def test_the_budget_survives_an_update_that_moves_the_wildcard(spent: WildcardBudget) -> None:
    moved = prepare(make_policy("a.example", "*.EXAMPLE.com"))
    denied = spent.spend("dbx_1", moved, name("new.example.com"), 1.0)
    assert denied is not None
    assert denied.rule == RuleRef("allowed_hostnames", 1, "*.EXAMPLE.com")


def test_a_devbox_that_ended_is_forgotten(spent: WildcardBudget) -> None:
    spent.forget_devbox("dbx_1")
    spent.forget_devbox("dbx_1")
    assert spent.spend("dbx_1", POLICY, name("new.example.com"), 1.0) is None


def test_all_wildcards_of_a_devbox_together_are_bounded() -> None:
    count = NAMES_PER_DEVBOX_MAX // NAMES_PER_WILDCARD_MAX + 1
    policy = prepare(make_policy(*(f"*.w{i}.example" for i in range(count))))
    budget = WildcardBudget()
    outcomes = [
        budget.spend("dbx_1", policy, name(f"n{i}.w{i % count}.example"), 0.0) for i in range(NAMES_PER_DEVBOX_MAX + 1)
    ]
    assert outcomes[:-1] == [None] * NAMES_PER_DEVBOX_MAX
    assert outcomes[-1] is not None
    assert outcomes[-1].reason is DenyReason.WILDCARD_BUDGET
