"""Targets, and the steps between them."""

from hypothesis import given
from hypothesis import strategies as st

from outgate.agent.target import (
    LINK_CHANGES_MAX,
    GateView,
    Placement,
    Target,
    bound_link_changes,
    deny_policy,
    gate_delta,
    gate_view,
    prepare_enforcement,
    revoked_devboxes,
    router_state,
)
from outgate.dataplane.driver import check_state
from outgate.model.desired import GateApply
from outgate.model.flow import HostContext
from support.agent_world import LAYOUT, make_document


def make_target(*placements: Placement, revision: int = 1, **hosts: tuple[str, ...]) -> Target:
    used = {placement.policy_id for placement in placements}
    documents = [make_document(name, hosts=hosts.get(name, ())) for name in used]
    return Target(
        revision,
        {document.id: prepare_enforcement(document, HostContext()) for document in documents},
        {placement.devbox_id: placement for placement in placements},
    )


def place(name: str, slot: int, policy_id: str = "npol_1") -> Placement:
    return Placement(name, "acc_1", policy_id, slot)


def take(view: GateView | None, frame: GateApply | None) -> GateView | None:
    """What a gate makes of a frame."""
    if frame is None:
        return view
    policies = {} if frame.full or view is None else dict(view.policies)
    devboxes = {} if frame.full or view is None else dict(view.devboxes)
    for key in frame.policies_removed:
        del policies[key]
    for key in frame.devboxes_removed:
        del devboxes[key]
    policies.update((policy.id, policy) for policy in frame.policies)
    devboxes.update((devbox.id, devbox) for devbox in frame.devboxes)
    addresses = frame.host_addresses if frame.host_addresses is not None or view is None else view.host_addresses
    return GateView(policies, devboxes, addresses or ())


placements = st.builds(
    place, st.sampled_from("abcdef"), st.integers(0, 20), st.sampled_from(["npol_1", "npol_2", "npol_3"])
)
targets = st.builds(
    lambda places, hosts: make_target(*places, **hosts),
    st.lists(placements, unique_by=lambda placement: placement.slot, max_size=5).map(
        lambda places: list({placement.devbox_id: placement for placement in places}.values())
    ),
    st.dictionaries(
        st.sampled_from(["npol_1", "npol_2", "npol_3"]), st.sampled_from([(), ("a.example",), ("b.example",)])
    ),
)


@given(before=st.none() | targets, after=targets)
def test_a_delta_leads_from_any_table_to_any_other(before: Target | None, after: Target) -> None:
    known = None if before is None else gate_view(before, LAYOUT, before.placements)
    wanted = gate_view(after, LAYOUT, after.placements)
    frame = gate_delta(known, wanted, 7)
    assert take(known, frame) == wanted
    assert gate_delta(wanted, wanted, 8) is None
    if frame is not None:
        assert frame.full is (known is None)


@given(target=targets)
def test_the_kernel_takes_every_target(target: Target) -> None:
    check_state(router_state(target, LAYOUT), LAYOUT)


def test_a_delta_says_only_what_changed() -> None:
    before = make_target(place("a", 0, "npol_1"), place("b", 1, "npol_2"))
    after = make_target(place("a", 0, "npol_1"), place("c", 2, "npol_3"), npol_1=("new.example",))
    frame = gate_delta(gate_view(before, LAYOUT, before.placements), gate_view(after, LAYOUT, after.placements), 2)
    assert frame is not None
    assert sorted(policy.id for policy in frame.policies) == ["npol_1", "npol_3"]
    assert frame.policies_removed == ("npol_2",)
    assert [devbox.id for devbox in frame.devboxes] == ["c"]
    assert frame.devboxes_removed == ("b",)
    assert frame.host_addresses is None


def test_new_links_are_held_back_and_removals_never() -> None:
    wanted = make_target(*(place(f"d{number}", number) for number in range(20)))
    bounded = bound_link_changes({"d0", "gone"}, wanted)
    assert len(bounded.placements) == LINK_CHANGES_MAX + 1
    assert "gone" not in bounded.placements
    assert bound_link_changes(wanted.placements, wanted) is wanted


def test_policies_of_held_back_devboxes_are_held_back_too() -> None:
    wanted = make_target(*(place(f"d{number}", number) for number in range(8)), place("late", 9, "npol_2"))
    assert set(bound_link_changes((), wanted).policies) == {"npol_1"}


def test_a_policy_that_does_not_parse_is_its_own_denial() -> None:
    broken = make_document(hosts=("allowed.example",), cidrs=("192.0.2.1/24",), allow_devbox_to_devbox=True)
    policy = prepare_enforcement(broken, HostContext())
    assert "host bits" in policy.complaint
    assert policy == deny_policy(broken, policy.complaint)
    assert (policy.plan.live, policy.plan.port_cells, policy.document.allowed_hostnames) == (frozenset(), (), ())
    assert (policy.document.id, policy.document.number, policy.document.revision) == ("npol_1", 17, 1)


def test_only_devboxes_of_policies_that_lost_a_grant_are_looked_through() -> None:
    documents = [make_document("npol_1", cidrs=("192.0.2.0/24",)), make_document("npol_2", cidrs=("192.0.2.0/24",))]
    before = Target(
        1,
        {document.id: prepare_enforcement(document, HostContext()) for document in documents},
        {"a": place("a", 0, "npol_1"), "b": place("b", 1, "npol_2")},
    )
    assert revoked_devboxes(before, {documents[1].allowed_cidrs[0].grant}) == {"b"}
