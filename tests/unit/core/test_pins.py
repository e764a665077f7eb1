"""Pins: what is taught, for how long, within which bounds, and what the kernel is told."""

from ipaddress import IPv4Address, ip_address

import pytest

from outgate.core.pins import (
    ADDRESSES_PER_DEVBOX_MAX,
    GRACE_S,
    NAMES_PER_PIN_MAX,
    TTL_S_MAX,
    TTL_S_MIN,
    PinChange,
    PinKey,
    PinTable,
    PinWrite,
    clamp_ttl_s,
)
from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName, parse_domain_name

BOX, OTHER = "dbx_1", "dbx_2"
A, B = ip_address("8.8.8.8"), ip_address("2606::1")
PYPI, GITHUB, HUB = map(parse_domain_name, ("pypi.org", "github.com", "api.github.com"))
LIFE_S = 300 + GRACE_S
"""How long a pin of TTL 300 lives."""


def write(address: IPAddress, timeout_s: float, *names: DomainName, is_new: bool) -> PinChange:
    return PinChange(PinWrite(PinKey(BOX, address), timeout_s, names, is_new))


@pytest.fixture
def table() -> PinTable:
    """One pin: pypi.org taught 8.8.8.8 at 0, for 300 s and the grace."""
    table = PinTable()
    table.teach(BOX, PYPI, A, 300, 0.0)
    return table


CLAMPS = {-1: TTL_S_MIN, 0: TTL_S_MIN, 4.9: TTL_S_MIN, 5: 5, 300: 300, 3600: 3600, 3601: TTL_S_MAX, 2**32: TTL_S_MAX}


@pytest.mark.parametrize(("ttl_s", "clamped_s"), CLAMPS.items())
def test_ttls_are_clamped_to_5_seconds_and_1_hour(ttl_s: float, clamped_s: float) -> None:
    assert clamp_ttl_s(ttl_s) == clamped_s
    table = PinTable()
    table.teach(BOX, PYPI, A, ttl_s, 0.0)
    assert table.names_of(BOX, A, clamped_s + GRACE_S - 0.1) == (PYPI,)
    assert table.names_of(BOX, A, clamped_s + GRACE_S) == ()


class TestTeach:
    def test_a_new_pin_is_written_with_twice_the_life_it_needs(self) -> None:
        assert PinTable().teach(BOX, PYPI, A, 300, 0.0) == write(A, 2 * LIFE_S, PYPI, is_new=True)

    def test_it_is_known_to_this_devbox_alone(self, table: PinTable) -> None:
        assert table.names_of(BOX, A, 1.0) == (PYPI,)
        assert table.names_of(OTHER, A, 1.0) == ()
        assert table.names_of(BOX, B, 1.0) == ()

    def test_taught_again_soon_it_is_not_written_again(self, table: PinTable) -> None:
        assert table.teach(BOX, PYPI, A, 300, LIFE_S) == PinChange()
        assert table.names_of(BOX, A, 2 * LIFE_S - 0.1) == (PYPI,)

    def test_taught_again_with_less_than_the_needed_life_left_it_is_renewed(self, table: PinTable) -> None:
        change = table.teach(BOX, PYPI, A, 300, LIFE_S + 0.5)
        assert change == write(A, 2 * LIFE_S, PYPI, is_new=False)

    def test_taught_again_after_the_kernel_forgot_it_is_new(self, table: PinTable) -> None:
        assert table.teach(BOX, PYPI, A, 300, 2 * LIFE_S) == write(A, 2 * LIFE_S, PYPI, is_new=True)

    def test_a_longer_ttl_is_written(self, table: PinTable) -> None:
        change = table.teach(BOX, PYPI, A, 3600, 1.0)
        assert change == write(A, 2 * (3600 + GRACE_S), PYPI, is_new=False)

    def test_a_shorter_ttl_shortens_nothing(self, table: PinTable) -> None:
        assert table.teach(BOX, PYPI, A, 5, 1.0) == PinChange()
        assert table.names_of(BOX, A, LIFE_S - 0.1) == (PYPI,)

    def test_several_names_of_one_address_live_their_own_lives(self, table: PinTable) -> None:
        table.teach(BOX, GITHUB, A, 5, 0.0)
        assert table.names_of(BOX, A, 1.0) == (PYPI, GITHUB)
        assert table.names_of(BOX, A, 5 + GRACE_S) == (PYPI,)

    def test_what_the_kernel_keeps_names_no_name_that_ended(self, table: PinTable) -> None:
        table.teach(BOX, GITHUB, A, 5, 0.0)
        assert table.teach(BOX, HUB, A, 3600, 200.0).write == PinWrite(
            PinKey(BOX, A), 2 * (3600 + GRACE_S), (PYPI, HUB), is_new=False
        )

    def test_a_pin_whose_names_all_ended_can_be_taught_anew(self, table: PinTable) -> None:
        table.teach(BOX, GITHUB, A, 300, LIFE_S + 1.0)
        assert table.names_of(BOX, A, LIFE_S + 1.0) == (GITHUB,)
        assert table.expire(2 * LIFE_S) == ()

    def test_a_mapped_address_is_the_ipv4_address_it_is(self) -> None:
        table = PinTable()
        change = table.teach(BOX, PYPI, ip_address("::ffff:8.8.8.8"), 300, 0.0)
        assert change == write(A, 2 * LIFE_S, PYPI, is_new=True)
        assert table.names_of(BOX, ip_address("::ffff:8.8.8.8"), 1.0) == (PYPI,)

    def test_both_families_stand_side_by_side(self, table: PinTable) -> None:
        table.teach(BOX, PYPI, B, 300, 0.0)
        assert table.names_of(BOX, A, 1.0) == table.names_of(BOX, B, 1.0) == (PYPI,)
        assert set(table.expire(LIFE_S)) == {PinKey(BOX, A), PinKey(BOX, B)}


def address(position: int) -> IPv4Address:
    return IPv4Address(0x0B00_0000 + position)


class TestBounds:
    def test_beyond_the_bound_the_pin_that_would_end_first_makes_room(self) -> None:
        table = PinTable()
        for i in range(ADDRESSES_PER_DEVBOX_MAX):
            # The pin at 7 ends first, then the one at 8.
            ttl_s = {7: 100, 8: 200}.get(i, 300)
            assert table.teach(BOX, PYPI, address(i), ttl_s, 0.0).deletes == ()
        change = table.teach(BOX, PYPI, A, 300, 1.0)
        assert change.write == PinWrite(PinKey(BOX, A), 2 * LIFE_S, (PYPI,), is_new=True)
        assert change.deletes == (PinKey(BOX, address(7)),)
        assert table.names_of(BOX, address(7), 1.0) == ()
        # A pin that was renewed since is not the first to end any more.
        table.teach(BOX, PYPI, address(8), 3600, 2.0)
        change = table.teach(BOX, PYPI, B, 300, 3.0)
        assert change.deletes == (PinKey(BOX, address(0)),)
        assert table.names_of(BOX, address(8), 3.0) == (PYPI,)

    def test_teaching_a_known_address_again_evicts_nothing(self) -> None:
        table = PinTable()
        for i in range(ADDRESSES_PER_DEVBOX_MAX):
            table.teach(BOX, PYPI, address(i), 300, 0.0)
        assert table.teach(BOX, GITHUB, address(5), 300, 1.0) == PinChange()

    def test_one_devboxs_flood_takes_nothing_from_another(self) -> None:
        table = PinTable()
        table.teach(OTHER, PYPI, A, 5, 0.0)
        for i in range(ADDRESSES_PER_DEVBOX_MAX + 10):
            table.teach(BOX, PYPI, address(i), 300, 0.0)
        assert table.names_of(OTHER, A, 1.0) == (PYPI,)

    def test_beyond_the_bound_the_name_that_would_end_first_makes_room(self, table: PinTable) -> None:
        names = [parse_domain_name(f"n{i}.example") for i in range(NAMES_PER_PIN_MAX)]
        for i, name in enumerate(names[:-1]):
            table.teach(BOX, name, A, 100 if i == 3 else 400, 0.0)
        table.teach(BOX, names[-1], A, 400, 0.0)
        known = table.names_of(BOX, A, 1.0)
        assert len(known) == NAMES_PER_PIN_MAX
        assert set(known) == {PYPI, *names} - {names[3]}


class TestTouch:
    def test_a_used_pin_lives_on(self, table: PinTable) -> None:
        table.teach(BOX, GITHUB, A, 5, 0.0)
        assert table.touch(BOX, A, 100.0) is None
        assert table.names_of(BOX, A, 100.0 + GRACE_S - 0.1) == (PYPI, GITHUB)

    def test_it_does_not_shorten_a_life(self, table: PinTable) -> None:
        table.touch(BOX, A, 1.0)
        assert table.names_of(BOX, A, LIFE_S - 0.1) == (PYPI,)

    def test_it_renews_the_kernels_element_when_that_would_end_first(self) -> None:
        table = PinTable()
        table.teach(BOX, PYPI, A, 5, 0.0)  # in the kernel until 250
        assert table.touch(BOX, A, 120.0) is None
        assert table.touch(BOX, A, 180.0) == PinWrite(PinKey(BOX, A), 2 * GRACE_S, (PYPI,), is_new=False)

    def test_touched_often_enough_it_never_ends(self, table: PinTable) -> None:
        now_s = 0.0
        while now_s < 3 * 3600:
            table.touch(BOX, A, now_s)
            assert table.expire(now_s) == ()
            now_s += GRACE_S / 2
        assert table.names_of(BOX, A, now_s) == (PYPI,)

    def test_what_ended_stays_ended(self, table: PinTable) -> None:
        table.teach(BOX, GITHUB, A, 5, 0.0)
        table.touch(BOX, A, 5 + GRACE_S)  # github.com ended just now, pypi.org did not
        assert table.names_of(BOX, A, 5 + GRACE_S) == (PYPI,)
        assert table.touch(BOX, A, 10_000.0) is None
        assert table.names_of(BOX, A, 10_000.0) == ()

    def test_an_unknown_pin_is_nothing(self, table: PinTable) -> None:
        assert table.touch(BOX, B, 1.0) is None
        assert table.touch(OTHER, A, 1.0) is None


class TestExpire:
    def test_it_takes_what_ended_and_nothing_else(self, table: PinTable) -> None:
        table.teach(BOX, PYPI, B, 600, 0.0)
        table.teach(OTHER, PYPI, A, 600, 0.0)
        assert table.expire(LIFE_S - 0.1) == ()
        assert table.expire(LIFE_S) == (PinKey(BOX, A),)
        assert table.expire(LIFE_S) == ()
        assert table.names_of(BOX, B, LIFE_S) == (PYPI,)

    def test_a_renewed_pin_is_not_taken(self, table: PinTable) -> None:
        table.teach(BOX, PYPI, A, 300, 100.0)
        assert table.expire(LIFE_S) == ()
        assert table.expire(LIFE_S + 100.0) == (PinKey(BOX, A),)

    def test_it_asks_for_no_deletion_of_what_the_kernel_ended_itself(self, table: PinTable) -> None:
        assert table.expire(2 * LIFE_S - 1.0) == ()

    def test_it_still_asks_a_moment_before(self, table: PinTable) -> None:
        assert table.expire(2 * LIFE_S - 1.5) == (PinKey(BOX, A),)

    def test_after_it_a_lesson_starts_anew(self, table: PinTable) -> None:
        table.expire(LIFE_S)
        assert table.teach(BOX, GITHUB, A, 300, LIFE_S) == write(A, 2 * LIFE_S, GITHUB, is_new=True)


class TestRejudge:
    def test_names_that_lost_their_rule_go_and_bare_pins_with_them(self, table: PinTable) -> None:
        table.teach(BOX, GITHUB, A, 300, 0.0)
        table.teach(BOX, GITHUB, B, 300, 0.0)
        assert table.rejudge(BOX, lambda name: name == PYPI, 1.0) == (PinKey(BOX, B),)
        assert table.names_of(BOX, A, 1.0) == (PYPI,)
        assert table.names_of(BOX, B, 1.0) == ()

    def test_nothing_goes_while_everything_is_covered(self, table: PinTable) -> None:
        assert table.rejudge(BOX, lambda _: True, 1.0) == ()
        assert table.names_of(BOX, A, 1.0) == (PYPI,)

    def test_other_devboxes_keep_theirs(self, table: PinTable) -> None:
        table.teach(OTHER, PYPI, A, 300, 0.0)
        assert table.rejudge(BOX, lambda _: False, 1.0) == (PinKey(BOX, A),)
        assert table.names_of(OTHER, A, 1.0) == (PYPI,)
        assert table.rejudge("dbx_unknown", lambda _: False, 1.0) == ()

    def test_each_name_is_asked_for_once(self, table: PinTable) -> None:
        asked: list[DomainName] = []
        for i in range(10):
            table.teach(BOX, GITHUB, address(i), 300, 0.0)

        def covers(name: DomainName) -> bool:
            asked.append(name)
            return True

        table.rejudge(BOX, covers, 1.0)
        assert sorted(asked) == sorted((PYPI, GITHUB))

    def test_a_pin_that_lost_its_longest_name_ends_with_the_others(self, table: PinTable) -> None:
        table.teach(BOX, GITHUB, A, 3600, 0.0)
        table.teach(BOX, HUB, A, 5, 0.0)
        table.rejudge(BOX, lambda name: name != GITHUB, 1.0)
        assert table.expire(LIFE_S - 0.1) == ()
        assert table.expire(LIFE_S) == (PinKey(BOX, A),)

    def test_a_pin_taught_again_after_it_lives_and_ends_as_any_other(self, table: PinTable) -> None:
        table.rejudge(BOX, lambda _: False, 1.0)
        assert table.teach(BOX, PYPI, A, 600, 2.0) == write(A, 2 * (600 + GRACE_S), PYPI, is_new=True)
        assert table.expire(LIFE_S) == ()
        assert table.expire(602.0 + GRACE_S) == (PinKey(BOX, A),)


class TestDropAndForget:
    def test_a_dropped_pin_is_written_anew_by_the_next_lesson(self, table: PinTable) -> None:
        table.teach(BOX, PYPI, B, 300, 0.0)
        table.drop([PinKey(BOX, A), PinKey(BOX, address(1)), PinKey(OTHER, A)])
        assert table.names_of(BOX, A, 1.0) == ()
        assert table.names_of(BOX, B, 1.0) == (PYPI,)
        assert table.teach(BOX, PYPI, A, 300, 1.0) == write(A, 2 * LIFE_S, PYPI, is_new=True)

    def test_a_forgotten_devboxs_pins_are_to_be_deleted(self, table: PinTable) -> None:
        table.teach(BOX, PYPI, B, 300, 0.0)
        assert set(table.forget_devbox(BOX, 1.0)) == {PinKey(BOX, A), PinKey(BOX, B)}
        assert table.names_of(BOX, A, 1.0) == ()
        assert table.forget_devbox(BOX, 1.0) == ()


class TestRewrite:
    """The kernel lost elements: somebody deleted them, or the table was made anew."""

    def test_what_is_missing_is_written_for_the_rest_of_its_life(self, table: PinTable) -> None:
        table.teach(BOX, PYPI, B, 300, 0.0)
        table.teach(BOX, GITHUB, A, 5, 0.0)
        lost = PinWrite(PinKey(BOX, A), 2 * (LIFE_S - 200.0), (PYPI,), is_new=True)
        assert table.rewrite(BOX, {B}, 200.0) == (lost,)
        assert table.rewrite(BOX, {A, B}, 200.0) == ()

    def test_what_ended_is_neither_written_nor_deleted_later(self, table: PinTable) -> None:
        assert table.rewrite(BOX, (), LIFE_S) == ()
        assert table.expire(LIFE_S) == ()

    def test_an_unknown_devbox_lost_nothing(self, table: PinTable) -> None:
        assert table.rewrite(OTHER, (), 1.0) == ()

    def test_the_new_element_counts_as_the_kernels(self, table: PinTable) -> None:
        table.rewrite(BOX, (), LIFE_S - 10.0)
        assert table.touch(BOX, A, LIFE_S - 9.0) == PinWrite(PinKey(BOX, A), 2 * GRACE_S, (PYPI,), is_new=False)


class TestRestore:
    def test_a_pin_read_back_is_known_and_needs_no_write(self) -> None:
        table = PinTable()
        assert table.restore(BOX, A, (PYPI, GITHUB), 400.0, 50.0) == PinChange()
        assert table.names_of(BOX, A, 449.9) == (PYPI, GITHUB)
        assert table.teach(BOX, PYPI, A, 5, 51.0) == PinChange()
        assert table.expire(449.9) == ()

    def test_it_ends_with_the_kernels_element(self) -> None:
        table = PinTable()
        table.restore(BOX, A, (PYPI,), 400.0, 50.0)
        assert table.expire(450.0) == ()
        assert table.names_of(BOX, A, 450.0) == ()
        assert table.teach(BOX, PYPI, A, 300, 451.0) == write(A, 2 * LIFE_S, PYPI, is_new=True)

    def test_it_lives_no_longer_than_a_pin_may(self) -> None:
        table = PinTable()
        table.restore(BOX, A, (PYPI,), 1e6, 0.0)
        assert table.names_of(BOX, A, TTL_S_MAX + GRACE_S) == ()
        assert table.expire(TTL_S_MAX + GRACE_S) == (PinKey(BOX, A),)

    def test_without_a_name_it_is_of_no_use_and_deleted(self) -> None:
        table = PinTable()
        assert table.restore(BOX, A, (), 400.0, 0.0) == PinChange(deletes=(PinKey(BOX, A),))
        assert table.restore(BOX, A, (), 0.5, 0.0) == PinChange()
        assert table.names_of(BOX, A, 0.0) == ()
        assert table.expire(1.0) == ()

    def test_it_joins_what_was_taught_meanwhile(self, table: PinTable) -> None:
        assert table.restore(BOX, A, (GITHUB,), 400.0, 1.0) == PinChange()
        assert table.names_of(BOX, A, 1.0) == (PYPI, GITHUB)

    def test_beyond_the_bound_it_is_deleted(self) -> None:
        table = PinTable()
        for i in range(ADDRESSES_PER_DEVBOX_MAX):
            table.restore(BOX, address(i), (PYPI,), 400.0, 0.0)
        assert table.restore(BOX, A, (PYPI,), 400.0, 0.0) == PinChange(deletes=(PinKey(BOX, A),))
        assert table.restore(BOX, address(3), (GITHUB,), 400.0, 0.0) == PinChange()
