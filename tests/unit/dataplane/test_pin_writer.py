"""Pins: one transaction a turn, careful when one fails, judged again after updates, read back after restarts."""

import errno
from collections.abc import Collection, Sequence
from ipaddress import ip_address

from outgate.dataplane.pin_elements import Pin
from outgate.dataplane.pin_restore import reconcile_pins, rejudge_pins
from outgate.dataplane.pin_writer import PinPlace
from outgate.model.desired import GateApply
from outgate.model.names import parse_domain_name
from support.gate_harness import FakePinSets, Harness, devbox, document
from support.policies import make_policy

ADDRESS = ip_address("93.184.216.34")
OTHER = ip_address("93.184.216.35")
NAME = parse_domain_name("example.com")


def teach(harness: Harness, address: str = str(ADDRESS), name: str = "example.com", number: int = 1) -> None:
    change = harness.table.pins.teach(
        f"dbx_{number}", parse_domain_name(name), ip_address(address), 60, harness.loop.now()
    )
    harness.writer.submit(harness.entry(number), change)


def taught(harness: Harness, number: int = 1) -> tuple[str, ...]:
    return harness.table.pins.names_of(f"dbx_{number}", ADDRESS, harness.loop.now())


def test_waiters_hear_after_the_commit_and_at_once_when_there_is_nothing_to_commit() -> None:
    harness = Harness(make_policy("example.com"))
    heard: list[Collection[PinPlace]] = []
    teach(harness)
    harness.writer.after_commit(heard.append)
    assert heard == []
    harness.writer.commit()
    assert heard == [frozenset()]
    harness.writer.after_commit(heard.append)
    assert len(heard) == 2


def test_a_renewed_pin_is_deleted_and_added_in_one_transaction() -> None:
    harness = Harness(make_policy("example.com", "b.example"))
    teach(harness)
    harness.writer.commit()
    harness.wait(200)
    teach(harness, name="b.example")
    harness.writer.commit()
    adds, deletes = harness.sets.transactions[-1]
    assert deletes == (("og1", ADDRESS),)
    assert [pin.names for pin in adds] == [("b.example",)]  # the other name ended after its 180 s


def test_a_renewal_of_a_pin_that_just_ended_in_the_kernel_still_works() -> None:
    harness = Harness(make_policy("example.com"))
    teach(harness)
    harness.writer.commit()
    harness.sets.pins.clear()
    harness.wait(200)
    teach(harness)
    heard: list[Collection[PinPlace]] = []
    harness.writer.after_commit(heard.append)
    harness.writer.commit()
    assert heard == [frozenset()]
    assert harness.sets.addresses("og1") == {ADDRESS}
    assert harness.warnings == []


class FullSets(FakePinSets):
    """Sets that have no room for one address."""

    def change(self, adds: Sequence[Pin], deletes: Sequence[PinPlace]) -> None:
        self.refusal = errno.ENFILE if any(pin.address == OTHER for pin in adds) else None
        super().change(adds, deletes)


def test_only_what_the_kernel_refused_is_refused() -> None:
    harness = Harness(make_policy("example.com"))
    harness.writer._sets = FullSets()
    teach(harness)
    teach(harness, str(OTHER))
    heard: list[Collection[PinPlace]] = []
    harness.writer.after_commit(heard.append)
    harness.writer.commit()
    assert heard == [{("og1", OTHER)}]
    assert [code for code, _ in harness.warnings] == ["pins_not_written"]


def test_deleting_what_is_gone_does_no_harm() -> None:
    harness = Harness(make_policy("example.com"))
    teach(harness)
    harness.writer.commit()
    harness.writer.delete([("og1", OTHER), ("og1", ADDRESS)])
    assert harness.sets.pins == {}
    assert harness.warnings == []


def apply(harness: Harness, update: GateApply) -> None:
    rejudge_pins(harness.table, harness.writer, harness.table.apply(update), harness.loop.now())


def test_an_update_takes_the_pins_of_lost_names_out_of_table_and_kernel() -> None:
    harness = Harness(make_policy("example.com", "b.example"))
    teach(harness)
    teach(harness, name="b.example")
    teach(harness, str(OTHER))
    harness.writer.commit()
    apply(harness, GateApply(revision=2, full=False, policies=(document(make_policy("b.example")),)))
    assert harness.sets.addresses("og1") == {ADDRESS}
    assert taught(harness) == ("b.example",)
    apply(harness, GateApply(revision=3, full=False, policies=(document(make_policy("c.example")),)))
    assert harness.sets.pins == {}


def test_the_pins_of_a_devbox_that_ended_are_gone_before_its_link_is_used_again() -> None:
    harness = Harness(make_policy("example.com"), devboxes=[devbox(1), devbox(2)])
    teach(harness)
    teach(harness, number=2)
    harness.writer.commit()
    apply(harness, GateApply(revision=2, full=False, devboxes_removed=("dbx_1",)))
    assert set(harness.sets.pins) == {("og2", ADDRESS)}


def test_after_a_restart_the_kernels_pins_are_taken_over_as_far_as_the_policy_covers_them() -> None:
    harness = Harness(make_policy("example.com"))
    names = ("example.com", "lost.example", "no name!")
    harness.sets.change(
        [
            Pin("og1", ADDRESS, 60_000, names),
            Pin("og1", OTHER, 60_000, ("lost.example",)),
            Pin("og9", ADDRESS, 60_000, ("example.com",)),
        ],
        (),
    )
    reconcile_pins(harness.table, harness.writer, harness.loop.now())
    assert taught(harness) == ("example.com",)
    assert set(harness.sets.pins) == {("og1", ADDRESS)}
    teach(harness)
    assert not harness.writer.is_idle  # 60 s are less than a new lesson lasts: the pin is renewed
    harness.writer.commit()
    assert harness.sets.pins["og1", ADDRESS].remaining_ms > 60_000


def test_pins_that_the_kernel_lost_are_written_again() -> None:
    harness = Harness(make_policy("example.com", "b.example"))
    teach(harness)
    teach(harness, str(OTHER))
    harness.writer.commit()
    del harness.sets.pins["og1", OTHER]
    harness.wait(30)
    reconcile_pins(harness.table, harness.writer, harness.loop.now())
    assert harness.sets.addresses("og1") == {ADDRESS, OTHER}


def test_a_pin_whose_element_remembers_only_lost_names_is_kept_for_its_newer_ones() -> None:
    harness = Harness(make_policy("example.com", "b.example"))
    teach(harness)
    harness.writer.commit()
    teach(harness, name="b.example")
    apply(harness, GateApply(revision=2, full=False, policies=(document(make_policy("b.example")),)))
    reconcile_pins(harness.table, harness.writer, harness.loop.now())
    assert harness.sets.addresses("og1") == {ADDRESS}
    assert taught(harness) == ("b.example",)
