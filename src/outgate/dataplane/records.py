"""Decisions on their way to the agent: a bounded queue, sent in batches.

Recording never delays a packet. When there is no room, a record is dropped and counted, and the
count travels with the next batch, so that a gap is seen. No devbox may take more than its share of
the room: what one box provokes does not hide what another one did.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from outgate import clock
from outgate.core.measuring import VERDICT_WORDS, DecisionCounts
from outgate.dataplane.gate_table import DevboxEntry
from outgate.dataplane.loop import Loop
from outgate.model.desired import FlowRecord, GateRecords
from outgate.model.policy import NetworkPolicy
from outgate.model.verdict import EnforcementPoint, ReportOnly, Verdict

_QUEUE_MAX: Final = 8192
"""Room for a burst between two flushes; about 4 MiB of records."""
_PER_DEVBOX_MAX: Final = 1024
"""One devbox's share of the queue."""
_BATCH_MAX: Final = 256
"""Records in one frame: some 100 KiB of JSON, and 700 KiB at worst; the agent takes 1 MiB."""
_FLUSH_INTERVAL_S: Final = 0.05


def decision_record(
    entry: DevboxEntry,
    verdict: Verdict,
    point: EnforcementPoint,
    *,
    sentence: str | None = None,
    name: str = "",
    address: str = "",
    port: int = 0,
    protocol: str = "",
) -> FlowRecord:
    """The record of ``verdict`` on something that ``entry``'s devbox wanted, as of now."""
    return record_verdict(
        verdict,
        point,
        time_ms=clock.wall_ms(),
        devbox_id=entry.id,
        policy=entry.policy.policy,
        sentence=sentence,
        name=name,
        address=address,
        port=port,
        protocol=protocol,
    )


def record_verdict(
    verdict: Verdict,
    point: EnforcementPoint,
    *,
    time_ms: int,
    devbox_id: str,
    policy: NetworkPolicy,
    sentence: str | None = None,
    name: str = "",
    address: str = "",
    port: int = 0,
    protocol: str = "",
) -> FlowRecord:
    """The record of ``verdict`` by ``policy``; it says the verdict's sentence unless another is given."""
    judged = verdict.would_be if isinstance(verdict, ReportOnly) else verdict
    said = verdict.sentence if sentence is None else sentence
    return FlowRecord(
        time_ms=time_ms,
        devbox_id=devbox_id,
        policy_id=policy.id,
        revision=policy.revision,
        verdict=VERDICT_WORDS[type(verdict)],
        reason=judged.reason.value,
        point=point.value,
        sentence=said,
        rule="" if judged.rule is None else str(judged.rule),
        name=name,
        address=address,
        port=port,
        protocol=protocol,
    )


class Recorder:
    """Takes records from the DNS gate and the relay and hands them to ``send`` a few times a second.

    ``send`` returns whether it took the batch; if it did not (the agent is slow to read), the records stay
    queued. ``decisions`` counts every verdict, also those that are not on record because they repeat others.
    """

    def __init__(self, loop: Loop, send: Callable[[GateRecords], bool]) -> None:
        self._loop = loop
        self._send = send
        self._queue: list[FlowRecord] = []
        self._queued_of: Counter[str] = Counter()
        self._dropped = 0
        self._is_scheduled = False
        self.decisions = DecisionCounts()
        self.dropped_ever = 0
        """Since the start."""

    @property
    def queued(self) -> int:
        """Records that wait for the agent."""
        return len(self._queue)

    def has_room(self, devbox_id: str) -> bool:
        """Whether a record of this devbox would be taken. If not, :meth:`drop` spares the work of making it."""
        return len(self._queue) < _QUEUE_MAX and self._queued_of.get(devbox_id, 0) < _PER_DEVBOX_MAX

    def record(self, record: FlowRecord) -> None:
        """Queue one record; drop and count it when its devbox's share or the queue is full."""
        if not self.has_room(record.devbox_id):
            self.drop()
            return
        self._queue.append(record)
        self._queued_of[record.devbox_id] += 1
        self._schedule()

    def drop(self) -> None:
        """Count a record that is not made."""
        self._dropped += 1
        self.dropped_ever += 1
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_at(self._loop.now() + _FLUSH_INTERVAL_S, self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        batch = GateRecords(records=tuple(self._queue[:_BATCH_MAX]), dropped=self._dropped)
        if self._send(batch):
            del self._queue[:_BATCH_MAX]
            self._queued_of = Counter(record.devbox_id for record in self._queue)
            self._dropped = 0
        if self._queue or self._dropped:
            self._schedule()
