"""Which pattern covers a name: exact entries first, then the longest wildcard, in O(labels)."""

from collections.abc import Iterable
from dataclasses import dataclass

from outgate.model.names import DomainName, HostPattern


@dataclass(frozen=True, slots=True)
class PatternIndex:
    """An index over host patterns. Made by :func:`prepare_patterns`."""

    exact: dict[str, int]
    wildcards: dict[str, int]

    def find(self, name: DomainName) -> int | None:
        """The position of the pattern that covers ``name``, or None.

        An exact entry beats every wildcard, a longer wildcard beats a shorter one, and of equal
        patterns the first listed wins.
        """
        found = self.exact.get(name)
        if found is not None or not self.wildcards:
            return found
        # A wildcard covers names below its own only, so the whole name is never looked up here.
        dot = name.find(".")
        while dot >= 0:
            found = self.wildcards.get(name[dot + 1 :])
            if found is not None:
                return found
            dot = name.find(".", dot + 1)
        return None


def prepare_patterns(patterns: Iterable[HostPattern]) -> PatternIndex:
    """An index over ``patterns``; positions are those of the given order."""
    exact: dict[str, int] = {}
    wildcards: dict[str, int] = {}
    for position, pattern in enumerate(patterns):
        (wildcards if pattern.is_wildcard else exact).setdefault(pattern.name, position)
    return PatternIndex(exact, wildcards)
