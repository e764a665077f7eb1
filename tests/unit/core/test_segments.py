"""Numbered ranges on a line: the lowest number wins at every point."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from outgate.core.segments import Segment, Segments, find_owner, merge, overlay

ranges = st.lists(
    st.builds(
        lambda first, length, owner: Segment(first, first + length, owner),
        st.integers(0, 30),
        st.integers(0, 30),
        st.integers(0, 5),
    ),
    max_size=12,
)


def owner_by_definition(items: list[Segment], point: int) -> int | None:
    return min((item.owner for item in items if item.first <= point <= item.last), default=None)


def assert_normal(segments: Segments) -> None:
    for segment in segments:
        assert segment.first <= segment.last
    for left, right in pairwise(segments):
        assert left.last < right.first
        assert left.last + 1 < right.first or left.owner != right.owner


@given(ranges)
def test_overlay_gives_each_point_to_the_lowest_owner(items: list[Segment]) -> None:
    segments = overlay(items)
    assert_normal(segments)
    for point in range(-1, 63):
        assert find_owner(segments, point) == owner_by_definition(items, point)


@given(ranges)
def test_overlay_is_idempotent(items: list[Segment]) -> None:
    assert overlay(overlay(items)) == overlay(items)


@given(ranges, ranges)
def test_merge_is_the_overlay_of_both(left: list[Segment], right: list[Segment]) -> None:
    assert merge(overlay(left), overlay(right)) == overlay([*left, *right])


def test_merge_hands_back_the_same_object_where_nothing_changes() -> None:
    left = overlay([Segment(0, 10, 1)])
    assert merge(left, ()) is left
    assert merge((), left) is left
    assert merge(left, overlay([Segment(2, 3, 7)])) is left


def test_neighbours_of_one_owner_are_joined_and_others_not() -> None:
    assert overlay([Segment(0, 4, 1), Segment(5, 9, 1)]) == (Segment(0, 9, 1),)
    assert overlay([Segment(0, 4, 1), Segment(5, 9, 2)]) == (Segment(0, 4, 1), Segment(5, 9, 2))
    assert overlay([Segment(0, 3, 1), Segment(5, 9, 1)]) == (Segment(0, 3, 1), Segment(5, 9, 1))


def test_nothing_owns_a_point_of_no_segments() -> None:
    assert overlay([]) == ()
    assert find_owner((), 5) is None
