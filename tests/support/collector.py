"""An OpenTelemetry collector on loopback that understands what it gets."""

import http.server
import threading
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

if TYPE_CHECKING:
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span


def values_of(attributes: Any) -> dict[str, Any]:
    """Attributes by key; ``attributes`` are KeyValues, in a container that protobuf does not type."""
    found: dict[str, Any] = {}
    for attribute in attributes:
        assert isinstance(attribute, KeyValue)
        found[attribute.key] = getattr(attribute.value, str(attribute.value.WhichOneof("value")))
    return found


class Collector:
    """Takes spans and log records, on a port of its own."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.records: list[LogRecord] = []
        self.resources: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._make_handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait_for(self, spans: int = 0, records: int = 0) -> None:
        """Until so many have come."""
        with self._news:
            assert self._news.wait_for(lambda: len(self.spans) >= spans and len(self.records) >= records, 40)

    def _make_handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._take(self.path, self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _take(self, path: str, body: bytes) -> None:
        with self._news:
            if path == "/v1/traces":
                for traced in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(values_of(traced.resource.attributes))
                    self.spans += [span for scope in traced.scope_spans for span in scope.spans]
            elif path == "/v1/logs":
                for logged in ExportLogsServiceRequest.FromString(body).resource_logs:
                    self.resources.append(values_of(logged.resource.attributes))
                    self.records += [record for scope in logged.scope_logs for record in scope.log_records]
            self._news.notify_all()
