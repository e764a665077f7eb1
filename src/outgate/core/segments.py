"""Numbered ranges on a line, where the lowest number wins: "the first listed rule wins", in one dimension.

A :class:`Segment` is ``first``..``last`` inclusive with the position of the rule that owns it. Segments of one
tuple are sorted, disjoint, and joined where neighbours have the same owner.
"""

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple


class Segment(NamedTuple):
    """``first``..``last``, owned by the rule at position ``owner``."""

    first: int
    last: int
    owner: int


Segments = tuple[Segment, ...]


def overlay(ranges: Iterable[Segment]) -> Segments:
    """Any ranges made disjoint: each point belongs to the lowest owner that covers it. O(n log n)."""
    waiting = sorted(ranges)
    edges = sorted({edge for item in waiting for edge in (item.first, item.last + 1)})
    active: list[tuple[int, int]] = []  # (owner, last), the lowest owner on top
    joined: list[Segment] = []
    position = 0
    for edge, next_edge in pairwise(edges):
        while position < len(waiting) and waiting[position].first <= edge:
            heappush(active, (waiting[position].owner, waiting[position].last))
            position += 1
        while active and active[0][1] < edge:
            heappop(active)
        if active:
            _append(joined, edge, next_edge - 1, active[0][0])
    return tuple(joined)


def merge(left: Segments, right: Segments) -> Segments:
    """Two tuples of segments as one, the lowest owner winning. Linear; ``left`` itself where nothing changes."""
    if not right:
        return left
    if not left:
        return right
    merged = overlay((*left, *right))
    return left if merged == left else merged


def _append(joined: list[Segment], first: int, last: int, owner: int) -> None:
    if joined and joined[-1].owner == owner and joined[-1].last + 1 == first:
        joined[-1] = Segment(joined[-1].first, last, owner)
    else:
        joined.append(Segment(first, last, owner))


def find_owner(segments: Segments, point: int) -> int | None:
    """The owner of ``point``, or None. O(log n)."""
    low, high = 0, len(segments)
    while low < high:
        middle = (low + high) // 2
        if segments[middle].last < point:
            low = middle + 1
        else:
            high = middle
    if low < len(segments) and segments[low].first <= point:
        return segments[low].owner
    return None
