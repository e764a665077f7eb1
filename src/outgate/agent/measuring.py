"""What the agent counts, and what the gate told it, on their way to the api every few seconds.

Nothing is kept for an api that does not answer: counts are totals, so the next word of the host says it all again.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from outgate.agent.flowlog import FlowLog
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.core.measuring import LatencyCounts
from outgate.model.measures import AgentMeasures, GateMeasures, HostMeasures

SEND_INTERVAL_S: Final = 5.0
"""How old the numbers of a host get; Prometheus asks every fifteen seconds as a rule."""


class MeasureSink(Protocol):
    """Where measures go."""

    async def store_measures(self, measures: HostMeasures) -> None:
        """Take them over. Raises PeerUnreachableError and PeerRefusedError."""


@dataclass(slots=True)
class AgentCounts:
    """What the agent's parts count; see :class:`~outgate.model.measures.AgentMeasures`. One thread's."""

    apply_gate: LatencyCounts = field(default_factory=LatencyCounts)
    apply_kernel: LatencyCounts = field(default_factory=LatencyCounts)
    apply_round: LatencyCounts = field(default_factory=LatencyCounts)
    rounds_failed: int = 0
    gate_restarts: int = 0
    drift_repairs: int = 0
    gate_records_dropped: int = 0
    """What the gate said that it dropped; the gate counts it itself."""


class HostMeter:
    """Gathers the measures of one host. ``gate`` is what the gate that runs said last."""

    def __init__(self, counts: AgentCounts, flows: FlowLog, boot_id: str, sink: MeasureSink | None) -> None:
        self._counts, self._flows, self._boot_id, self._sink = counts, flows, boot_id, sink
        self._sent = 0
        self._log = structlog.get_logger("measures")
        self.gate: GateMeasures | None = None

    def measure(self) -> HostMeasures:
        """Everything as it is now, under the next number."""
        self._sent += 1
        counts, flows = self._counts, self._flows
        agent = AgentMeasures(
            decisions=flows.decisions.measure(),
            apply_gate=counts.apply_gate.measure(),
            apply_kernel=counts.apply_kernel.measure(),
            apply_round=counts.apply_round.measure(),
            rounds_failed=counts.rounds_failed,
            gate_restarts=counts.gate_restarts,
            drift_repairs=counts.drift_repairs,
            kernel_records_dropped=flows.lost_before_ever - counts.gate_records_dropped,
            records_queued=flows.queued,
            records_sent=flows.sent_ever,
            records_dropped=flows.dropped_ever,
        )
        return HostMeasures(self._boot_id, self._sent, agent, self.gate)

    async def run(self) -> None:
        """Send until cancelled."""
        while self._sink is not None:
            try:
                await self._sink.store_measures(self.measure())
            except (PeerUnreachableError, PeerRefusedError) as error:
                self._log.debug("measures_not_sent", why=error.message)
            await asyncio.sleep(SEND_INTERVAL_S)
