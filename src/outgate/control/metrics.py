"""What one api process counts of itself, in a registry of its own."""

from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from outgate import __version__
from outgate.control import metric_table
from outgate.control.metric_table import Metric
from outgate.model.measures import LATENCY_BOUNDS_S

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_OTHER: Final = "other"

# When a counter was made is of no use to anybody, and would be a second series for each.
disable_created_metrics()  # type: ignore[no-untyped-call] # the package lacks the annotation


def _counter(registry: CollectorRegistry, metric: Metric) -> Counter:
    return Counter(metric.name, metric.about, metric.labels, registry=registry)


def _histogram(registry: CollectorRegistry, metric: Metric) -> Histogram:
    return Histogram(metric.name, metric.about, metric.labels, registry=registry, buckets=LATENCY_BOUNDS_S)


class Metrics:
    """Counters, gauges and histograms, and the process's own numbers (``process_*``). May be used by any thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        counter, histogram = partial(_counter, registry), partial(_histogram, registry)
        self.records_stored = counter(metric_table.RECORDS_STORED)
        self.records_foreign = counter(metric_table.RECORDS_FOREIGN)
        self.update_enforced = histogram(metric_table.UPDATE)
        self.updates_late = counter(metric_table.UPDATE_LATE)
        self.auth_failures = counter(metric_table.AUTH_FAILURES)
        self.otel_failures = counter(metric_table.TELEMETRY_FAILURES)
        self.streams = Gauge(metric_table.STREAMS.name, metric_table.STREAMS.about, registry=registry)
        build = Gauge(metric_table.BUILD_INFO.name, metric_table.BUILD_INFO.about, ["version"], registry=registry)
        build.labels(__version__).set(1)
        self._requests = counter(metric_table.REQUESTS)
        self._request = histogram(metric_table.REQUEST)
        ProcessCollector(registry=registry)

    def answered(self, method: str, route: str, status: int, took_s: float) -> None:
        """A request was answered. ``route`` is a template of ours, never a path that somebody asked for."""
        known = method if method in _METHODS else _OTHER
        self._requests.labels(known, route, str(status)).inc()
        self._request.labels(known, route).observe(took_s)
