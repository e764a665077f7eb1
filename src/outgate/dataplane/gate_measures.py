"""What the gate measures of itself: on the hot path latencies, and every few seconds the rest, for the agent."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from outgate.core.measuring import LatencyCounts
from outgate.dataplane.gate_table import GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.records import Recorder
from outgate.model.measures import GateMeasures

MEASURE_INTERVAL_S: Final = 5.0
"""How often the agent hears of them; each time costs some 50 µs."""


@dataclass(frozen=True, slots=True)
class GateLatencies:
    """How long things take in the gate; see :class:`~outgate.model.measures.GateMeasures`."""

    dns_ready: LatencyCounts = field(default_factory=LatencyCounts)
    dns_cached: LatencyCounts = field(default_factory=LatencyCounts)
    dns_forwarded: LatencyCounts = field(default_factory=LatencyCounts)
    dns_denied: LatencyCounts = field(default_factory=LatencyCounts)
    relay_decision: LatencyCounts = field(default_factory=LatencyCounts)
    relay_dial: LatencyCounts = field(default_factory=LatencyCounts)


class Lookups(Protocol):
    """What is asked of the DNS gate."""

    @property
    def lookups_open(self) -> int:
        """Queries that wait for upstream."""
        ...


@dataclass(frozen=True, slots=True)
class GateMeter:
    """Looks at the parts of a gate, again and again. ``count_flows``: relayed flows that are open."""

    loop: Loop
    table: GateTable
    recorder: Recorder
    dns: Lookups
    count_flows: Callable[[], int]
    latencies: GateLatencies
    send: Callable[[GateMeasures], None]

    def start(self) -> None:
        """Send what there is, now and every :data:`MEASURE_INTERVAL_S` seconds."""
        self.send(self.measure())
        self.loop.call_at(self.loop.now() + MEASURE_INTERVAL_S, self.start)

    def measure(self) -> GateMeasures:
        """Everything as it is now."""
        latencies, table = self.latencies, self.table
        return GateMeasures(
            decisions=self.recorder.decisions.measure(),
            dns_ready=latencies.dns_ready.measure(),
            dns_cached=latencies.dns_cached.measure(),
            dns_forwarded=latencies.dns_forwarded.measure(),
            dns_denied=latencies.dns_denied.measure(),
            relay_decision=latencies.relay_decision.measure(),
            relay_dial=latencies.relay_dial.measure(),
            lookups_open=self.dns.lookups_open,
            flows_open=self.count_flows(),
            pins=len(table.pins),
            devboxes=len(table),
            records_queued=self.recorder.queued,
            records_dropped=self.recorder.dropped_ever,
        )
