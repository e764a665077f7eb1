"""Measures of a host, as its agent would send them."""

from outgate.core.measuring import LatencyCounts
from outgate.model.measures import AgentMeasures, DecisionMeasure, GateMeasures, HostMeasures, LatencyMeasure
from outgate.model.verdict import EnforcementPoint

NOTHING = LatencyCounts().measure()


def latency(*took_s: float) -> LatencyMeasure:
    """These, counted."""
    counts = LatencyCounts()
    for one_s in took_s:
        counts.observe(one_s)
    return counts.measure()


def gate_measures(
    *decisions: DecisionMeasure, dns_denied: LatencyMeasure = NOTHING, records_dropped: int = 0
) -> GateMeasures:
    return GateMeasures(
        decisions=decisions,
        dns_ready=NOTHING,
        dns_cached=NOTHING,
        dns_forwarded=NOTHING,
        dns_denied=dns_denied,
        relay_decision=NOTHING,
        relay_dial=NOTHING,
        lookups_open=1,
        flows_open=2,
        pins=3,
        devboxes=4,
        records_queued=5,
        records_dropped=records_dropped,
    )


def host_measures(
    *decisions: DecisionMeasure,
    boot_id: str = "boot",
    number: int = 1,
    gate: GateMeasures | None = None,
    gate_restarts: int = 0,
) -> HostMeasures:
    agent = AgentMeasures(
        decisions=decisions,
        apply_gate=NOTHING,
        apply_kernel=NOTHING,
        apply_round=latency(0.002),
        rounds_failed=0,
        gate_restarts=gate_restarts,
        drift_repairs=0,
        kernel_records_dropped=0,
        records_queued=0,
        records_sent=0,
        records_dropped=0,
    )
    return HostMeasures(boot_id, number, agent, gate)


def denial(reason: str = "no_rule", count: int = 1, verdict: str = "deny") -> DecisionMeasure:
    return DecisionMeasure(EnforcementPoint.DNS, verdict, reason, count)
