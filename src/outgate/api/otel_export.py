"""What goes to the collector: a span of each request, a log record of each decision.

This module needs the packages of the extra; :mod:`outgate.api.otel` imports it where a collector is set. They queue in
memory that is bounded and send from threads of their own: a collector that does not answer costs records, never a
request.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import requests
import structlog
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

from outgate import __version__
from outgate.clock import monotonic_s
from outgate.control.metrics import Metrics
from outgate.control.telemetry import Answered, RequestSpan

QUEUE_MAX: Final = 8192
"""Spans, and as many log records, that wait: some 10 MB. The oldest are lost when there are more."""
SEND_EVERY_MS: Final = 2000
SEND_S_MAX: Final = 5.0
"""How long the collector may take for a batch, tries included."""
CLOSE_S_MAX: Final = 2.0
_TOLD_EVERY_S: Final = 60.0
_SERVICE: Final = "outgate-api"


class OtelTelemetry:
    """A :class:`~outgate.control.telemetry.Telemetry`, to the collector at ``endpoint``: OTLP/HTTP's base URL."""

    def __init__(self, endpoint: str, metrics: Metrics) -> None:

        _listen_to_failures(metrics)
        resource = Resource.create({"service.name": _SERVICE, "service.version": __version__})
        self._spans = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=SEND_S_MAX, session=_make_session())
        self._records = OTLPLogExporter(f"{endpoint}/v1/logs", timeout=SEND_S_MAX, session=_make_session())
        # Neither is made the process's global one: nothing but this class shall send anything.
        self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._traces.add_span_processor(
            BatchSpanProcessor(self._spans, max_queue_size=QUEUE_MAX, schedule_delay_millis=SEND_EVERY_MS)
        )
        self._logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._logs.add_log_record_processor(
            BatchLogRecordProcessor(self._records, max_queue_size=QUEUE_MAX, schedule_delay_millis=SEND_EVERY_MS)
        )
        self._tracer = self._traces.get_tracer("outgate", __version__)
        self._logger = self._logs.get_logger("outgate", __version__)

    @contextmanager
    def request(self) -> Iterator[RequestSpan]:
        """A span of kind SERVER, named when the route is known."""
        with self._tracer.start_as_current_span("request", kind=SpanKind.SERVER) as span:
            yield _OtelSpan(span)

    def enforcing(self) -> AbstractContextManager[object]:
        """The span ``enforce`` below the request's."""
        return self._tracer.start_as_current_span("enforce")

    def decided(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """A log record for each: warnings for denials, with semantic conventions' names where there are any."""
        for row in rows:
            is_denied = row["verdict"] == "deny"
            self._logger.emit(
                timestamp=row["time_ms"] * 1_000_000,
                severity_number=SeverityNumber.WARN if is_denied else SeverityNumber.INFO,
                severity_text="WARN" if is_denied else "INFO",
                body=row["sentence"],
                event_name="outgate.decision",
                attributes=_attributes(row),
            )

    def close(self) -> None:
        """Send what waits, within :data:`CLOSE_S_MAX`; a collector that does not answer holds nothing up."""
        closing = threading.Thread(target=self._shut_down, name="otel-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S_MAX)
        if closing.is_alive():  # in a wait for another try, which ends by this
            self._spans.shutdown()  # type: ignore[no-untyped-call] # the package lacks it
            self._records.shutdown()  # type: ignore[no-untyped-call] # the package lacks it

    def _shut_down(self) -> None:
        self._traces.shutdown()
        self._logs.shutdown()


def _make_session() -> requests.Session:
    """Without the environment's proxies and the user's netrc, which this process may not read."""
    session = requests.Session()
    session.trust_env = False
    return session


class _OtelSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, answered: Answered) -> None:

        span = self._span
        span.update_name(f"{answered.method} {answered.route}")
        span.set_attributes(
            {
                "http.request.method": answered.method,
                "http.route": answered.route,
                "http.response.status_code": answered.status,
                "outgate.request.id": answered.request_id,
            }
        )
        if answered.account_id is not None:
            span.set_attribute("outgate.account.id", answered.account_id)
        if answered.status >= 500:
            span.set_status(StatusCode.ERROR)


def _attributes(row: Mapping[str, Any]) -> dict[str, str | int]:
    """Attributes of a decision; what the record does not say is left out."""
    protocol = row["protocol"]
    named = {
        "network.transport": protocol if protocol in ("tcp", "udp") else "tcp" if protocol in ("tls", "http") else None,
        "network.protocol.name": protocol if protocol in ("tls", "http") else None,
        "server.address": row["name"] or row["address"],
        "server.port": row["port"],
        "network.peer.address": row["address"],
        "outgate.verdict": row["verdict"],
        "outgate.reason": row["reason"],
        "outgate.point": row["point"],
        "outgate.rule": row["rule"],
        "outgate.account.id": row["account_id"],
        "outgate.devbox.id": row["devbox_id"],
        "outgate.policy.id": row["policy_id"],
        "outgate.policy.revision": row["revision"],
        "outgate.count": row["count"],
    }
    totals = {f"outgate.{name}": row[name] for name in ("bytes_out", "bytes_in", "duration_ms")}
    return {key: value for key, value in named.items() if value} | {k: v for k, v in totals.items() if v is not None}


class _Failures(logging.Handler):
    """What the packages complain of: counted, and told once a minute."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.WARNING)
        self._metrics = metrics
        self._told_s: float | None = None
        self._log = structlog.get_logger("otel")

    def emit(self, record: logging.LogRecord) -> None:
        self._metrics.otel_failures.inc()
        now_s = monotonic_s()
        if self._told_s is None or now_s - self._told_s >= _TOLD_EVERY_S:
            self._told_s = now_s
            self._log.warning("otel_failed", why=record.getMessage()[:500])


def _listen_to_failures(metrics: Metrics) -> None:
    logger = logging.getLogger("opentelemetry")
    for handler in [known for known in logger.handlers if isinstance(known, _Failures)]:
        logger.removeHandler(handler)
    logger.addHandler(_Failures(metrics))
    logger.propagate = False
