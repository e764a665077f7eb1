"""How many names a wildcard may give a devbox in an hour.

A lookup is a message to whoever runs the zone: with ``*.example.com`` allowed, a program can spell out data in
names below it. A budget makes that channel too narrow to be useful (256 names of 200 bytes an hour) while no
ordinary program notices it. Exact entries cost nothing, since their names are the policy's own choice.
"""

from dataclasses import dataclass, field
from typing import Final

from outgate.core.prepared import PreparedPolicy
from outgate.core.sentences import wildcard_spent
from outgate.model.names import DomainName, HostPattern
from outgate.model.verdict import Deny, DenyReason

NAMES_PER_WILDCARD_MAX: Final = 256
NAMES_PER_DEVBOX_MAX: Final = 4096
"""All wildcards of a devbox together: the memory that one devbox can fill, some 1 MB at worst."""
WINDOW_S: Final = 3600.0


@dataclass(slots=True, eq=False)
class _Ledger:
    """What one devbox was charged within the window."""

    charged: dict[DomainName, tuple[float, HostPattern]] = field(default_factory=dict)
    """Name → when, and to which wildcard; oldest first."""
    counts: dict[HostPattern, int] = field(default_factory=dict)
    """Wildcard → how many of the names are its own."""

    def forget_old(self, now_s: float) -> None:
        while self.charged:
            oldest = next(iter(self.charged))
            charged_s, pattern = self.charged[oldest]
            if charged_s > now_s - WINDOW_S:
                return
            del self.charged[oldest]
            self.counts[pattern] -= 1
            if not self.counts[pattern]:
                del self.counts[pattern]

    def has_room(self, pattern: HostPattern) -> bool:
        return self.counts.get(pattern, 0) < NAMES_PER_WILDCARD_MAX and len(self.charged) < NAMES_PER_DEVBOX_MAX

    def charge(self, name: DomainName, pattern: HostPattern, now_s: float) -> None:
        self.charged[name] = (now_s, pattern)
        self.counts[pattern] = self.counts.get(pattern, 0) + 1


class WildcardBudget:
    """Counts the names that wildcards gave each devbox within the last hour.

    Times are seconds on the caller's monotonic clock.
    """

    def __init__(self) -> None:
        self._ledgers: dict[str, _Ledger] = {}

    def spend(self, devbox_id: str, policy: PreparedPolicy, name: DomainName, now_s: float) -> Deny | None:
        """Charge ``name`` to the wildcard that covers it; a Deny when that wildcard has no more to give.

        None for a name that an exact entry or ``allow_all`` allows, and for one already charged this hour.
        Charge a name before it goes upstream, whoever asks for it (DNS gate or relay): it is the question that
        tells. A name that no rule covers is not the budget's business: None.
        """
        rule = None if policy.is_allow_all else policy.find_host_rule(name)
        if rule is None or not rule.pattern.is_wildcard:
            return None
        ledger = self._ledgers.setdefault(devbox_id, _Ledger())
        ledger.forget_old(now_s)
        if name in ledger.charged:
            return None
        if not ledger.has_room(rule.pattern):
            ref = rule.allow.rule
            return Deny(DenyReason.WILDCARD_BUDGET, wildcard_spent(policy.policy, name, ref), ref)
        ledger.charge(name, rule.pattern, now_s)
        return None

    def forget_devbox(self, devbox_id: str) -> None:
        """Drop what was counted for a devbox that ended."""
        self._ledgers.pop(devbox_id, None)
