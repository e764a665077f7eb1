"""The table: who is behind an address, what an update changes, and that a bad update changes nothing."""

import pytest

from outgate.dataplane.gate_table import GateTable
from outgate.model.desired import GateApply, GateDevbox
from outgate.model.flow import HostContext
from support.gate_harness import devbox, document
from support.policies import make_policy

ONE = document(make_policy("example.com", policy_id="npol_1"))
TWO = document(make_policy("example.org", policy_id="npol_2", number=17))


def make_table(*boxes: GateDevbox) -> GateTable:
    table = GateTable(HostContext())
    table.apply(GateApply(revision=1, full=True, policies=(ONE, TWO), devboxes=boxes))
    return table


def test_devboxes_are_found_by_either_address() -> None:
    table = make_table(devbox(1), devbox(2, "npol_2"))
    first = table.find_devbox("10.213.0.1")
    assert first is not None
    assert first is table.find_devbox("fd00::1") is table.get_devbox("dbx_1")
    assert (first.id, first.link, first.policy.policy.id) == ("dbx_1", "og1", "npol_1")
    assert table.find_devbox("10.213.0.3") is None
    assert len(table) == 2


def test_addresses_are_found_as_the_kernel_spells_them() -> None:
    box = devbox(1)
    odd = GateDevbox(box.id, box.account_id, box.policy_id, box.link, box.address4, "FD00:0:0::0001")
    assert make_table(odd).find_devbox("fd00::1") is not None


def test_a_changed_policy_reaches_its_devboxes_only() -> None:
    table = make_table(devbox(1), devbox(2, "npol_2"))
    first, second = table.get_devbox("dbx_1"), table.get_devbox("dbx_2")
    assert first is not None
    assert second is not None
    kept = second.policy
    update = document(make_policy("other.example", policy_id="npol_1"))
    change = table.apply(GateApply(revision=2, full=False, policies=(update,)))
    assert (change.policy_ids, change.removed, change.added) == (frozenset({"npol_1"}), (), ())
    assert str(first.policy.policy.egress.allowed_hostnames[0]) == "other.example"
    assert second.policy is kept
    assert table.revision == 2


def test_the_same_full_update_again_changes_nothing() -> None:
    table = make_table(devbox(1))
    entry = table.get_devbox("dbx_1")
    change = table.apply(GateApply(revision=1, full=True, policies=(ONE, TWO), devboxes=(devbox(1),)))
    assert (change.policy_ids, change.removed, change.added) == (frozenset(), (), ())
    assert table.get_devbox("dbx_1") is entry


def test_a_devbox_that_gets_another_policy_is_judged_by_it_again() -> None:
    table = make_table(devbox(1))
    entry = table.get_devbox("dbx_1")
    assert entry is not None
    change = table.apply(GateApply(revision=2, full=False, devboxes=(devbox(1, "npol_2"),)))
    assert change.policy_ids == {"npol_2"}
    assert table.get_devbox("dbx_1") is entry
    assert (entry.policy_id, entry.policy.policy.id) == ("npol_2", "npol_2")


def test_new_host_addresses_concern_every_policy() -> None:
    table = make_table(devbox(1))
    change = table.apply(GateApply(revision=2, full=False, host_addresses=("192.0.2.7",)))
    entry = table.get_devbox("dbx_1")
    assert entry is not None
    assert change.policy_ids == {"npol_1", "npol_2"}
    assert [str(address) for address in entry.context.host_addresses] == ["192.0.2.7"]
    again = table.apply(GateApply(revision=3, full=False, host_addresses=("192.0.2.7",)))
    assert again.policy_ids == frozenset()


def test_removed_devboxes_are_found_no_more() -> None:
    table = make_table(devbox(1), devbox(2))
    change = table.apply(GateApply(revision=2, full=False, devboxes_removed=("dbx_1",)))
    assert change.removed_devbox_ids == {"dbx_1"}
    assert table.find_devbox("10.213.0.1") is None
    full = table.apply(GateApply(revision=3, full=True, policies=(ONE,)))
    assert full.removed_devbox_ids == {"dbx_2"}


def test_a_devbox_on_another_link_is_another_one() -> None:
    table = make_table(devbox(1))
    entry = table.get_devbox("dbx_1")
    moved = GateDevbox("dbx_1", "acct_1", "npol_1", "og9", "10.213.0.9")
    change = table.apply(GateApply(revision=2, full=False, devboxes=(moved,)))
    assert change.removed == (entry,)
    assert [one.link for one in change.added] == ["og9"]
    assert table.find_devbox("10.213.0.1") is None


def test_an_address_may_pass_to_another_devbox_within_one_update() -> None:
    table = make_table(devbox(1))
    heir = GateDevbox("dbx_7", "acct_1", "npol_1", "og1", "10.213.0.1", "fd00::1")
    table.apply(GateApply(revision=2, full=False, devboxes=(heir,), devboxes_removed=("dbx_1",)))
    found = table.find_devbox("10.213.0.1")
    assert found is not None
    assert found.id == "dbx_7"


@pytest.mark.parametrize(
    "update",
    [
        GateApply(revision=2, full=False, devboxes=(devbox(2, "npol_9"),)),
        GateApply(revision=2, full=False, policies_removed=("npol_1",)),
        GateApply(revision=2, full=True, devboxes=(devbox(1),)),
        GateApply(revision=2, full=False, devboxes=(GateDevbox("dbx_2", "a", "npol_1", "og2", "10.213.0.1"),)),
        GateApply(revision=2, full=False, devboxes=(GateDevbox("dbx_2", "a", "npol_1", "og2", "10.213.0"),)),
        GateApply(revision=2, full=False, host_addresses=("here",)),
    ],
    ids=["unknown policy", "policy in use removed", "full without policies", "address twice", "no address", "no host"],
)
def test_an_update_without_sense_changes_nothing(update: GateApply) -> None:
    table = make_table(devbox(1))
    entry = table.get_devbox("dbx_1")
    assert entry is not None
    before = (entry.policy, entry.context, entry.policy_id)
    with pytest.raises(ValueError, match=r"."):
        table.apply(update)
    assert table.revision == 1
    assert table.get_devbox("dbx_1") is entry is table.find_devbox("10.213.0.1")
    assert (entry.policy, entry.context, entry.policy_id) == before
