"""Decisions that were carried out on this host: the latest kept for readers, and one canonical log line each.

The lines are for debugging: at the usual level there are none, since writing one costs more than deciding (with
them the agent took 45 µs of every relayed connection, on the cores that the gate needs).

Records come from the gate (lookups, relayed flows) and from the driver (what the kernel refused). The ring
keeps the last ``_RECORDS_MAX`` of them; a reader that falls behind sees a gap in the numbers, never a stall.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec
import structlog

from outgate.model.desired import FlowRecord

_RECORDS_MAX: Final = 20_000
"""About 12 MiB; at a thousand decisions a second twenty seconds of them, which a follower never falls behind."""
PAGE_MAX: Final = 1000


class FlowEntry(msgspec.Struct, frozen=True, gc=False):
    """A record and its place: ``number`` counts from 1 since the agent started."""

    number: int
    record: FlowRecord


class FlowPage(msgspec.Struct, frozen=True):
    """Entries, oldest first. ``next_after`` is what to ask for next; ``dropped`` counts records lost on the way."""

    entries: tuple[FlowEntry, ...]
    next_after: int
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """Which records a reader wants; None means any."""

    devbox_id: str | None = None
    policy_id: str | None = None
    verdict: str | None = None
    since_ms: int | None = None

    def covers(self, record: FlowRecord) -> bool:
        """Whether ``record`` is wanted."""
        return (
            (self.devbox_id is None or record.devbox_id == self.devbox_id)
            and (self.policy_id is None or record.policy_id == self.policy_id)
            and (self.verdict is None or record.verdict == self.verdict)
            and (self.since_ms is None or record.time_ms >= self.since_ms)
        )


class FlowLog:
    """The ring of records. Used from the agent's event loop only."""

    def __init__(self) -> None:
        self._entries: deque[FlowEntry] = deque(maxlen=_RECORDS_MAX)
        self._count = 0
        self._dropped = 0
        self._grown = asyncio.Event()
        self._log = structlog.get_logger("flow")

    def add(self, records: Iterable[FlowRecord], dropped: int = 0) -> None:
        """Keep ``records``, and log them at debug level; ``dropped`` more were lost on the way here."""
        is_logged = self._log.is_enabled_for(logging.DEBUG)
        for record in records:
            self._count += 1
            self._entries.append(FlowEntry(self._count, record))
            if is_logged:
                self._log.debug("flow", **_line_of(record))
        if dropped:
            self._dropped += dropped
            self._log.warning("flows_dropped", count=dropped)
        self._grown.set()
        self._grown = asyncio.Event()

    def read(self, wanted: FlowFilter, after: int, limit: int) -> FlowPage:
        """The first ``limit`` wanted entries after number ``after``.

        ``after`` negative means the latest ``limit`` of them. Numbers from an earlier life of the agent
        (higher than any now) start from the beginning.
        """
        if after > self._count:
            after = 0
        if after < 0:
            found = self._latest(wanted, limit)
        else:
            # Numbers in the ring are contiguous: what was seen is skipped without being looked at.
            seen = max(0, after - (self._count - len(self._entries)))
            unseen = islice(self._entries, seen, None)
            found = list(islice((entry for entry in unseen if wanted.covers(entry.record)), limit))
        last = found[-1].number if len(found) == limit else self._count
        return FlowPage(tuple(found), next_after=last, dropped=self._dropped)

    def _latest(self, wanted: FlowFilter, limit: int) -> list[FlowEntry]:
        found = list(islice((entry for entry in reversed(self._entries) if wanted.covers(entry.record)), limit))
        found.reverse()
        return found

    async def read_or_wait(self, wanted: FlowFilter, after: int, limit: int, wait_s: float) -> FlowPage:
        """As :meth:`read`, but wait up to ``wait_s`` while there is nothing to hand out."""
        if wait_s <= 0:
            return self.read(wanted, after, limit)
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    grown = self._grown
                    page = self.read(wanted, after, limit)
                    if page.entries:
                        return page
                    after = page.next_after
                    await grown.wait()
        except TimeoutError:
            return self.read(wanted, after, limit)


def _line_of(record: FlowRecord) -> dict[str, object]:
    """The record without what it does not say."""
    return {key: value for key, value in msgspec.to_builtins(record).items() if key != "time_ms"}
