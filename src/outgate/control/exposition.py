"""Everything that Prometheus is told: this process's registry, what the store says of hosts, what hosts counted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from outgate.clock import monotonic_s
from outgate.control import metric_table
from outgate.control.health import Health, observe_health
from outgate.control.host_measures import HeardMeasures
from outgate.control.metric_table import Metric, MetricKind
from outgate.control.services import Services
from outgate.control.webhook_counters import WebhookCounters
from outgate.core.measuring import known_decisions
from outgate.model.measures import LATENCY_BOUNDS_S, GateMeasures, LatencyMeasure
from outgate.store.errors import StoreError
from outgate.store.installation import Installation, read_installation

_BOUNDS: Final = (*map(str, LATENCY_BOUNDS_S), "+Inf")
_SingleValue = CounterMetricFamily | GaugeMetricFamily


@dataclass(frozen=True, slots=True)
class Exposition(Collector):
    """One moment, to be rendered by an encoder of prometheus_client. No ``installation``: the store did not answer."""

    own: Collector
    installation: Installation | None
    health: Health
    enforced: dict[str, int]
    webhooks: WebhookCounters
    heard: tuple[tuple[str, HeardMeasures], ...]
    now_ms: int
    now_s: float

    def collect(self) -> Iterator[Family]:
        """Every family, each once."""
        yield from self.own.collect()
        families = _Families()
        families.add(metric_table.STORE_UP, (), self.installation is not None)
        if self.installation is not None:
            self._add_hosts(families, self.installation)
        _add_webhooks(families, self.webhooks)
        for host_id, heard in self.heard:
            _add_measures(families, host_id, heard, self.now_s)
        yield from families.all()

    def _add_hosts(self, families: "_Families", installation: Installation) -> None:
        for status, count in sorted(installation.devboxes.items()):
            families.add(metric_table.DEVBOXES, (status,), count)
        healths = {host.name: host for host in self.health.hosts}
        for row in installation.hosts:
            labels, health = (row.id,), healths.get(row.name)
            wanted, enforced = installation.wanted.get(row.id, 0), self.enforced.get(row.id, row.enforced)
            families.add(metric_table.HOST_ENFORCING, labels, health is not None and health.problem is None)
            families.add(metric_table.HOST_WARNINGS, labels, 0 if health is None else len(health.warnings))
            families.add(metric_table.HOST_SEEN, labels, max(0, self.now_ms - row.seen_time_ms) / 1000)
            families.add(metric_table.WANTED, labels, wanted)
            families.add(metric_table.ENFORCED, labels, enforced)
            families.add(metric_table.LAG, labels, max(0, wanted - enforced))


@dataclass(slots=True)
class _Families:
    """Families as they come together: a metric has one, whatever the number of hosts."""

    _known: dict[str, Family] = field(default_factory=dict)

    def add(self, metric: Metric, labels: Iterable[str], value: float) -> None:
        family = self._find(metric)
        assert isinstance(family, _SingleValue)  # noqa: S101 - the table's kind says so
        family.add_metric(list(labels), value)

    def add_latency(self, metric: Metric, labels: Iterable[str], measure: LatencyMeasure) -> None:
        family = self._find(metric)
        assert isinstance(family, HistogramMetricFamily)  # noqa: S101 - the table's kind says so
        buckets = list(zip(_BOUNDS, accumulate(measure.counts), strict=True))
        family.add_metric(list(labels), buckets, measure.sum_s)

    def all(self) -> Iterator[Family]:
        yield from self._known.values()

    def _find(self, metric: Metric) -> Family:
        family = self._known.get(metric.name)
        if family is None:
            family = self._known[metric.name] = _FAMILIES[metric.kind](
                metric.name, metric.about, labels=list(metric.labels)
            )
        return family


_FAMILIES: Final = {
    MetricKind.COUNTER: CounterMetricFamily,
    MetricKind.GAUGE: GaugeMetricFamily,
    MetricKind.HISTOGRAM: HistogramMetricFamily,
}


def _add_webhooks(families: _Families, counters: WebhookCounters) -> None:
    for outcome, count in (
        ("delivered", counters.delivered),
        ("failed", counters.failed),
        ("retried", counters.retries),
    ):
        families.add(metric_table.WEBHOOK_DELIVERIES, (outcome,), count)
    families.add(metric_table.WEBHOOK_PENDING, (), counters.pending)
    families.add(metric_table.WEBHOOK_DROPPED, (), counters.dropped)
    families.add(metric_table.WEBHOOKS_OFF, (), counters.switched_off)


def _add_measures(families: _Families, host_id: str, heard: HeardMeasures, now_s: float) -> None:
    agent, gate, labels = heard.measures.agent, heard.measures.gate, (host_id,)
    told = (agent.decisions,) if gate is None else (agent.decisions, gate.decisions)
    for kind, count in sorted(known_decisions(*told).items()):
        families.add(metric_table.DECISIONS, (host_id, *kind), count)
    for step, latency in (("gate", agent.apply_gate), ("kernel", agent.apply_kernel), ("round", agent.apply_round)):
        families.add_latency(metric_table.APPLY, (host_id, step), latency)
    for metric, value in (
        (metric_table.MEASURES_AGE, max(0.0, now_s - heard.heard_s)),
        (metric_table.APPLY_FAILURES, agent.rounds_failed),
        (metric_table.GATE_RESTARTS, agent.gate_restarts),
        (metric_table.DRIFT_REPAIRS, agent.drift_repairs),
        (metric_table.RECORDS_SENT, agent.records_sent),
    ):
        families.add(metric, labels, value)
    families.add(metric_table.RECORDS_QUEUED, (host_id, "agent"), agent.records_queued)
    families.add(metric_table.RECORDS_DROPPED, (host_id, "agent"), agent.records_dropped)
    families.add(metric_table.RECORDS_DROPPED, (host_id, "kernel"), agent.kernel_records_dropped)
    if gate is not None:
        _add_gate(families, host_id, gate)


def _add_gate(families: _Families, host_id: str, gate: GateMeasures) -> None:
    for answer, latency in (
        ("ready", gate.dns_ready),
        ("cached", gate.dns_cached),
        ("forwarded", gate.dns_forwarded),
        ("denied", gate.dns_denied),
    ):
        families.add_latency(metric_table.DNS, (host_id, answer), latency)
    families.add_latency(metric_table.RELAY_DECISION, (host_id,), gate.relay_decision)
    families.add_latency(metric_table.RELAY_DIAL, (host_id,), gate.relay_dial)
    for metric, value in (
        (metric_table.DNS_OPEN, gate.lookups_open),
        (metric_table.RELAY_FLOWS, gate.flows_open),
        (metric_table.PINS, gate.pins),
        (metric_table.GATE_DEVBOXES, gate.devboxes),
    ):
        families.add(metric, (host_id,), value)
    families.add(metric_table.RECORDS_QUEUED, (host_id, "gate"), gate.records_queued)
    families.add(metric_table.RECORDS_DROPPED, (host_id, "gate"), gate.records_dropped)


async def expose(services: Services, now_ms: int) -> Exposition:
    """Everything as it is now; without what the store knows when it does not answer."""
    try:
        installation = await services.database.read(read_installation)
    except StoreError:
        installation = None
    presence = services.presence
    enforced: dict[str, int | None] = {}
    if installation is not None and not services.database.is_shared:
        # It is known here before it is stored, and no other process hears of it.
        enforced = {row.id: presence.enforced(row.id) for row in installation.hosts}
    now_s = monotonic_s()
    return Exposition(
        own=services.metrics.registry,
        installation=installation,
        health=await observe_health(services, now_ms),
        enforced={host_id: seq for host_id, seq in enforced.items() if seq is not None},
        webhooks=services.webhooks,
        heard=tuple(services.measurements.recent(now_s)),
        now_ms=now_ms,
        now_s=now_s,
    )
