"""Decisions that were carried out on this host, on their way to the api's store, and one canonical log line each.

Nothing here delays a decision: records that came together are told as one with a count, what does not fit is
counted and dropped, and no devbox takes more than its share of the room. A batch that may not have arrived is sent
again under its number, by which the api knows it.

The lines are for debugging: at the usual level there are none, since writing one costs more than deciding (with
them the agent took 45 µs of every relayed connection, on the cores that the gate needs).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final, Protocol

import msgspec
import structlog
from msgspec import structs

from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.core.measuring import DecisionCounts
from outgate.model.desired import FlowBatch, FlowRecord
from outgate.model.verdict import EnforcementPoint

_PENDING_MAX: Final = 8192
"""Different records that wait: some 8 MiB, and what a busy host decides in a few seconds."""
_PER_DEVBOX_MAX: Final = 1024
"""One devbox's share of them, so that its flood does not hide what others do."""
_BATCH_MAX: Final = 500
"""Records in one batch: 500 KiB at worst, two or three milliseconds of the store's writer."""
_GATHER_S: Final = 0.5
"""How long records are gathered: repeats in this time become one, and a reader sees it half a second later."""
_RETRY_S: Final = 1.0
_HOPELESS: Final = frozenset({400, 413})
"""What was refused so is refused the next time as well."""

_Key = tuple[str, str, int, str, str, str, str, str, str, int, str, bool]


class FlowSink(Protocol):
    """Where records go."""

    async def store_flows(self, batch: FlowBatch) -> None:
        """Keep them; a batch that was kept before is not kept twice.

        Raises PeerUnreachableError and PeerRefusedError.
        """


class FlowLog:
    """Records that wait to be sent. Used from the agent's event loop only."""

    def __init__(self, sink: FlowSink, boot_id: str) -> None:
        self._sink, self._boot_id = sink, boot_id
        self._pending: dict[_Key, FlowRecord] = {}
        self._pending_of: Counter[str] = Counter()
        self._dropped = 0
        self._sent = 0
        self.decisions = DecisionCounts()
        """Those of the kernel; the gate counts its own, also those that it does not tell of."""
        self.sent_ever = self.dropped_ever = self.lost_before_ever = 0
        """Records since the start; the last are those that did not even come here."""
        self._grown = asyncio.Event()
        self._log = structlog.get_logger("flow")

    @property
    def queued(self) -> int:
        """Records that wait to be sent."""
        return len(self._pending)

    def add(self, records: Iterable[FlowRecord], dropped: int = 0) -> None:
        """Have ``records`` sent, and log them at debug level; ``dropped`` more were lost on the way here."""
        is_logged = self._log.is_enabled_for(logging.DEBUG)
        for record in records:
            self._gather(record)
            if record.point == EnforcementPoint.KERNEL and record.bytes_out is None:
                self.decisions.add(EnforcementPoint.KERNEL, record.verdict, record.reason, record.count)
            if is_logged:
                self._log.debug("flow", **_line_of(record))
        self._dropped += dropped
        self.lost_before_ever += dropped
        self._grown.set()

    def has_room(self, devbox_id: str) -> bool:
        """Whether a new record of this devbox would be taken. If not, counting it spares the work of making it."""
        return len(self._pending) < _PENDING_MAX and self._pending_of.get(devbox_id, 0) < _PER_DEVBOX_MAX

    def _gather(self, record: FlowRecord) -> None:
        key = _key_of(record)
        known = self._pending.get(key)
        if known is not None:
            self._pending[key] = _merged(known, record)
        elif not self.has_room(record.devbox_id):
            self._dropped += 1
            self.dropped_ever += 1
        else:
            self._pending[key] = record
            self._pending_of[record.devbox_id] += 1

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._grown.wait()
            await asyncio.sleep(_GATHER_S)
            self._grown.clear()
            while self._pending or self._dropped:
                await self._send(self._take())

    def _take(self) -> FlowBatch:
        taken = dict(islice(self._pending.items(), _BATCH_MAX))
        for key, record in taken.items():
            del self._pending[key]
            self._pending_of[record.devbox_id] -= 1
        self._pending_of = +self._pending_of
        self._sent += 1
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._log.warning("flows_dropped", count=dropped)
        return FlowBatch(self._boot_id, self._sent, tuple(taken.values()), dropped)

    async def _send(self, batch: FlowBatch) -> None:
        while True:
            try:
                await self._sink.store_flows(batch)
            except PeerUnreachableError as error:
                self._log.info("flows_wait", why=error.message)
            except PeerRefusedError as error:
                if error.status in _HOPELESS:
                    self._log.error("flows_refused", count=len(batch.records), why=error.message)
                    self._dropped += len(batch.records) + batch.dropped
                    self.dropped_ever += len(batch.records)
                    return
                self._log.info("flows_wait", why=error.message)
            else:
                self.sent_ever += len(batch.records)
                return
            await asyncio.sleep(_RETRY_S)


def _key_of(record: FlowRecord) -> _Key:
    """What makes two records the same decision; a decision and a finished flow never are."""
    return (
        record.devbox_id,
        record.policy_id,
        record.revision,
        record.verdict,
        record.reason,
        record.point,
        record.rule,
        record.name,
        record.address,
        record.port,
        record.protocol,
        record.bytes_out is None,
    )


def _merged(known: FlowRecord, record: FlowRecord) -> FlowRecord:
    """Both as one: from the first to the last, with the sums of what they counted."""
    return structs.replace(
        record,
        began_ms=min(_began_ms(known), _began_ms(record)),
        count=known.count + record.count,
        bytes_out=_sum(known.bytes_out, record.bytes_out),
        bytes_in=_sum(known.bytes_in, record.bytes_in),
        duration_ms=_sum(known.duration_ms, record.duration_ms),
    )


def _began_ms(record: FlowRecord) -> int:
    return record.time_ms if record.began_ms is None else record.began_ms


def _sum(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else one + other


def _line_of(record: FlowRecord) -> dict[str, object]:
    """The record without what it does not say."""
    return {key: value for key, value in msgspec.to_builtins(record).items() if key != "time_ms"}
