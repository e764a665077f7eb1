"""The same bytes in pieces: a parser must not care how they come."""

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from zlib import crc32

_SINGLE_BYTES_MAX = 300
"""Longer inputs are not fed byte by byte: it would cost more than it finds."""


def ways_to_cut(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """A few ways to cut ``data``, chosen by the data alone, so that a find stays one."""
    random = Random(crc32(data))
    for pieces in (2, 5):
        yield cut_at(data, [random.randint(0, len(data)) for _ in range(pieces)])
    if len(data) <= _SINGLE_BYTES_MAX:
        yield tuple(data[at : at + 1] for at in range(len(data)))


def cut_at(data: bytes, places: list[int]) -> tuple[bytes, ...]:
    """The pieces between ``places``; none is empty."""
    edges = [0, *sorted(places), len(data)]
    return tuple(data[start:end] for start, end in pairwise(edges) if start < end)
