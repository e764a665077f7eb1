"""Who talked to what: devboxes and hosts, what was allowed and what was denied, over time. Sums of the flow log."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.store.devboxes import DevboxFilter, list_devboxes
from outgate.store.flows import FlowFilter, FlowSum, sum_decisions

STEPS: Final = 48
"""Stretches of time that are told apart."""
RECORDS_MAX: Final = 100_000
"""The newest so many records are added up: some 0.3 s of a reader. A record counts repeats, so there may be more."""
HOSTS_MAX: Final = 40
DEVBOXES_MAX: Final = 12
"""The busiest are shown one by one; the rest is added up."""
_NAMED_MAX: Final = 1000

OTHERS: Final = ""
"""Stands for all hosts, or devboxes, beyond those that are shown."""


@dataclass(slots=True)
class Tally:
    """Decisions by what became of them."""

    allowed: int = 0
    denied: int = 0
    reported: int = 0
    """Denied by the rules and let through, because the policy only reports."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.allowed + self.denied + self.reported

    def add(self, verdict: str, count: int) -> None:
        """Count ``count`` decisions of this verdict."""
        match verdict:
            case "allow":
                self.allowed += count
            case "report_only":
                self.reported += count
            case _:
                self.denied += count


@dataclass(frozen=True, slots=True)
class Conversations:
    """From ``since_ms`` to ``until_ms``, in STEPS steps. ``hosts`` and ``devbox_ids`` are the busiest, busiest first.

    ``cells`` is by host and devbox; OTHERS stands for those that are not shown one by one, if there are any.
    ``is_partial``: there were more records than are added up, and the oldest are missing.
    """

    since_ms: int
    until_ms: int
    hosts: tuple[str, ...]
    devbox_ids: tuple[str, ...]
    names: dict[str, str]
    """Names of devboxes that have one, by id."""
    cells: dict[tuple[str, str], Tally]
    by_host: dict[str, Tally]
    steps: tuple[Tally, ...]
    steps_by_host: dict[str, tuple[Tally, ...]]
    total: Tally = field(default_factory=Tally)
    is_partial: bool = False

    @property
    def step_ms(self) -> int:
        """How long one step is."""
        return (self.until_ms - self.since_ms) // STEPS


async def sum_conversations(services: Services, caller: Caller, *, since_ms: int, until_ms: int) -> Conversations:
    """What the caller's devboxes talked to in that time, which is at least STEPS milliseconds."""
    step_ms = (until_ms - since_ms) // STEPS
    wanted = FlowFilter(since_ms=since_ms, until_ms=since_ms + STEPS * step_ms)

    def read(tx: Connection) -> tuple[list[FlowSum], dict[str, str]]:
        sums = sum_decisions(tx, caller.account_id, wanted, begin_ms=since_ms, step_ms=step_ms, limit=RECORDS_MAX)
        boxes = list_devboxes(tx, caller.account_id, DevboxFilter(), limit=_NAMED_MAX)
        return sums, {row.id: row.name for row in boxes if row.name}

    sums, names = await read_as(services, caller, read)
    return gather(sums, names, since_ms=since_ms, until_ms=since_ms + STEPS * step_ms)


def gather(sums: list[FlowSum], names: dict[str, str], *, since_ms: int, until_ms: int) -> Conversations:
    """``sums`` as a picture."""
    hosts, devbox_ids = _busiest(sums)
    found = Conversations(
        since_ms=since_ms,
        until_ms=until_ms,
        hosts=hosts,
        devbox_ids=devbox_ids,
        names=names,
        cells={},
        by_host={host: Tally() for host in (*hosts, OTHERS)},
        steps=tuple(Tally() for _ in range(STEPS)),
        steps_by_host={host: tuple(Tally() for _ in range(STEPS)) for host in (*hosts, OTHERS)},
        is_partial=sum(one.records for one in sums) >= RECORDS_MAX,
    )
    for one in sums:
        host = one.host if one.host in hosts else OTHERS
        devbox_id = one.devbox_id if one.devbox_id in devbox_ids else OTHERS
        tallies = (
            found.total,
            found.by_host[host],
            found.steps[one.step],
            found.steps_by_host[host][one.step],
            found.cells.setdefault((host, devbox_id), Tally()),
        )
        for tally in tallies:
            tally.add(one.verdict, one.count)
    return found


def _busiest(sums: list[FlowSum]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    hosts: Counter[str] = Counter()
    devboxes: Counter[str] = Counter()
    for one in sums:
        if one.host:  # some denials know no place at all
            hosts[one.host] += one.count
        devboxes[one.devbox_id] += one.count
    return _top(hosts, HOSTS_MAX), _top(devboxes, DEVBOXES_MAX)


def _top(counts: Counter[str], most: int) -> tuple[str, ...]:
    """The most frequent, of equals the first by name: the same whatever order they came in."""
    return tuple(sorted(counts, key=lambda name: (-counts[name], name))[:most])
