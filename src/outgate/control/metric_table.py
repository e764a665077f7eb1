"""Every metric: its name, kind, labels, and what it says. docs/operations.md lists the same, and a test compares them.

Labels have few values, whatever devboxes, accounts and hosts do: ids of hosts, words of ours, templates of routes.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class MetricKind(StrEnum):
    """As Prometheus calls them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``name`` is without the suffixes that are put behind it, ``_total`` and ``_bucket`` for example."""

    name: str
    kind: MetricKind
    about: str
    labels: tuple[str, ...] = ()

    @property
    def shown_name(self) -> str:
        """As people look for it: counters end in ``_total``."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER else self.name


HOST: Final = "host"


def _of_host(name: str, kind: MetricKind, about: str, *labels: str) -> Metric:
    return Metric(f"outgate_{name}", kind, about, (HOST, *labels))


_COUNTER, _GAUGE, _HISTOGRAM = MetricKind.COUNTER, MetricKind.GAUGE, MetricKind.HISTOGRAM

BUILD_INFO: Final = Metric(
    "outgate_build_info", _GAUGE, "Always 1; the label says which version answers.", ("version",)
)

# Of hosts, as the store has them.
STORE_UP: Final = Metric(
    "outgate_store_up", _GAUGE, "1 when the store answered this, else 0 (and what it knows is missing)."
)
HOST_ENFORCING: Final = _of_host("host_enforcing", _GAUGE, "1 when the host's agent is connected and enforces, else 0.")
HOST_WARNINGS: Final = _of_host("host_warnings", _GAUGE, "Warnings in force on the host; /healthz says which.")
HOST_SEEN: Final = _of_host(
    "host_seen_seconds", _GAUGE, "Seconds since the host's last sign of life was stored (it is every five seconds)."
)
WANTED: Final = _of_host("wanted_revision", _GAUGE, "The newest change that concerns the host.")
ENFORCED: Final = _of_host("enforced_revision", _GAUGE, "The revision that is in force on the host.")
LAG: Final = _of_host(
    "enforcement_lag_revisions", _GAUGE, "How far the revision in force is behind the wanted one; 0 when it is not."
)
DEVBOXES: Final = Metric("outgate_devboxes", _GAUGE, "Devboxes that have not ended, by their status.", ("status",))

# Of hosts, as they count themselves.
MEASURES_AGE: Final = _of_host("measures_age_seconds", _GAUGE, "Seconds since the host's own numbers came in.")
DECISIONS: Final = _of_host(
    "decisions", _COUNTER, "Decisions, by where they were made, verdict and reason.", "point", "verdict", "reason"
)
DNS: Final = _of_host(
    "dns_seconds",
    _HISTOGRAM,
    "From a lookup's arrival to its answer: ready (the same answer within a second), cached, forwarded, denied.",
    "answer",
)
DNS_OPEN: Final = _of_host("dns_lookups_open", _GAUGE, "Lookups that wait for an upstream resolver.")
RELAY_DECISION: Final = _of_host(
    "relay_decision_seconds", _HISTOGRAM, "From the first byte of a relayed flow to the verdict on it."
)
RELAY_DIAL: Final = _of_host(
    "relay_dial_seconds", _HISTOGRAM, "From the verdict on a relayed flow until its far side answered, lookup included."
)
RELAY_FLOWS: Final = _of_host("relayed_flows", _GAUGE, "Relayed flows that are open.")
PINS: Final = _of_host("pins", _GAUGE, "Addresses that DNS taught devboxes and that are still known.")
GATE_DEVBOXES: Final = _of_host("gate_devboxes", _GAUGE, "Devboxes in the gate's table.")
GATE_RESTARTS: Final = _of_host("gate_restarts", _COUNTER, "Times that the gate ended and was started again.")
APPLY: Final = _of_host(
    "apply_seconds",
    _HISTOGRAM,
    "Bringing a change into force: the gate's part, the kernel's transaction, the whole round.",
    "step",
)
APPLY_FAILURES: Final = _of_host("apply_failures", _COUNTER, "Rounds that the kernel refused.")
DRIFT_REPAIRS: Final = _of_host("drift_repairs", _COUNTER, "Times that something else had changed Outgate's rules.")
RECORDS_QUEUED: Final = _of_host(
    "flow_records_queued", _GAUGE, "Records of decisions that wait, in gate or agent.", "stage"
)
RECORDS_DROPPED: Final = _of_host(
    "flow_records_dropped", _COUNTER, "Records lost for want of room, in kernel, gate or agent.", "stage"
)
RECORDS_SENT: Final = _of_host("flow_records_sent", _COUNTER, "Records that the agent handed to the api.")

# Of the api process that answers.
RECORDS_STORED: Final = Metric("outgate_flow_records_stored", _COUNTER, "Records of decisions that this api stored.")
RECORDS_FOREIGN: Final = Metric(
    "outgate_flow_records_foreign", _COUNTER, "Records that a host sent of devboxes that are not its own; not stored."
)
UPDATE: Final = Metric(
    "outgate_update_enforced_seconds", _HISTOGRAM, "From an update's commit until all hosts concerned enforce it."
)
UPDATE_LATE: Final = Metric(
    "outgate_updates_late", _COUNTER, "Updates that were answered before every host concerned enforced them."
)
REQUESTS: Final = Metric(
    "outgate_api_requests", _COUNTER, "Requests, by route template and status.", ("method", "route", "status")
)
REQUEST: Final = Metric(
    "outgate_api_request_seconds", _HISTOGRAM, "From a request's arrival to the end of its answer.", ("method", "route")
)
AUTH_FAILURES: Final = Metric(
    "outgate_auth_failures", _COUNTER, "Keys and tokens that were not valid, by their kind.", ("kind",)
)
STREAMS: Final = Metric("outgate_event_stream_readers", _GAUGE, "Readers of server-sent events.")
WEBHOOK_DELIVERIES: Final = Metric(
    "outgate_webhook_deliveries",
    _COUNTER,
    "Deliveries of webhooks: delivered, failed (given up), retried (a try that failed and will be repeated).",
    ("outcome",),
)
WEBHOOK_PENDING: Final = Metric("outgate_webhook_deliveries_pending", _GAUGE, "Deliveries that wait in the store.")
WEBHOOK_DROPPED: Final = Metric(
    "outgate_webhook_denials_dropped", _COUNTER, "Denials that were left out of a delivery because it was full."
)
WEBHOOKS_OFF: Final = Metric(
    "outgate_webhooks_switched_off", _COUNTER, "Webhooks that were switched off because they kept failing."
)
TELEMETRY_FAILURES: Final = Metric(
    "outgate_otel_failures", _COUNTER, "Exports that the OpenTelemetry collector did not take; 0 without one."
)

METRICS: Final = tuple(value for value in tuple(globals().values()) if isinstance(value, Metric))
