"""OpenTelemetry: what a collector gets, and that one that does not answer is nobody's business but the operator's."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from outgate import __version__
from outgate.api import otel
from outgate.api.otel_export import QUEUE_MAX, OtelTelemetry
from outgate.control.metrics import Metrics
from outgate.control.telemetry import Answered
from outgate.errors import SettingError
from outgate.model.desired import FlowBatch, FlowRecord
from support.api_server import HOST_TOKEN, ApiServer
from support.collector import Collector, values_of

ANSWERED = Answered("GET", "/v1/devboxes/{id}", 200, "req_1", "acct_1", "key_1")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def make_row(**changes: Any) -> dict[str, Any]:
    return {
        "time_ms": 1_700_000_000_123,
        "account_id": "acct_1",
        "devbox_id": "dbx_1",
        "policy_id": "npol_1",
        "revision": 3,
        "verdict": "deny",
        "reason": "no_rule",
        "point": "relay",
        "rule": "",
        "sentence": "No rule covers it.",
        "name": "x.example",
        "address": "192.0.2.1",
        "port": 443,
        "protocol": "tls",
        "count": 2,
        "bytes_out": None,
        "bytes_in": None,
        "duration_ms": None,
    } | changes


def test_a_request_is_a_span_and_an_update_has_one_below_it(collector: Collector, tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    server.services = replace(server.services, telemetry=OtelTelemetry(collector.endpoint, server.services.metrics))
    with server as running:
        with httpx.Client(base_url=running.base_url, timeout=30) as client:
            client.headers["authorization"] = f"Bearer {running.new_account('a').api_key}"
            policy = client.post("/v1/network-policies", json={"name": "p"}).json()["id"]
            client.post("/v1/devboxes", json={"launch_parameters": {"network_policy_id": policy}})
            updated = client.post(f"/v1/network-policies/{policy}", json={"allowed_hostnames": ["a.example"]})
        collector.wait_for(spans=4)
    server.services.telemetry.close()
    (enforce,) = [span for span in collector.spans if span.name == "enforce"]
    (request,) = [span for span in collector.spans if span.name == "POST /v1/network-policies/{id}"]
    assert (enforce.trace_id, enforce.parent_span_id) == (request.trace_id, request.span_id)
    told = values_of(request.attributes)
    assert told.pop("outgate.account.id").startswith("acct_")
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/network-policies/{id}",
        "http.response.status_code": 200,
        "outgate.request.id": updated.headers["x-outgate-request-id"],
    }
    assert request.kind == request.SPAN_KIND_SERVER
    assert collector.resources[0]["service.name"] == "outgate-api"
    assert collector.resources[0]["service.version"] == __version__


def test_stored_decisions_are_log_records(collector: Collector, tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    server.services = replace(server.services, telemetry=OtelTelemetry(collector.endpoint, server.services.metrics))
    with server as running:
        with httpx.Client(base_url=running.base_url, timeout=30) as client:
            client.headers["authorization"] = f"Bearer {running.new_account('a').api_key}"
            devbox = client.post("/v1/devboxes", json={}).json()["id"]
        records = (
            FlowRecord(5, devbox, "npol_1", 2, "deny", "no_rule", "dns", "No rule.", name="x.example"),
            FlowRecord(6, "dbx_none", "npol_1", 2, "deny", "no_rule", "dns", "Not the host's."),
        )
        transport = httpx.HTTPTransport(uds=str(running.socket_path))
        headers = {"authorization": f"Bearer {HOST_TOKEN}"}
        with httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=30) as host:
            host.post("/internal/v1/flows", content=msgspec.json.encode(FlowBatch("boot", 1, records)))
        collector.wait_for(records=1)
    server.services.telemetry.close()
    (record,) = collector.records
    assert record.body.string_value == "No rule."
    assert values_of(record.attributes)["outgate.devbox.id"] == devbox
    assert values_of(record.attributes)["outgate.account.id"].startswith("acct_")


def test_a_decision_has_the_names_of_the_conventions_and_a_denial_is_a_warning(collector: Collector) -> None:
    telemetry = OtelTelemetry(collector.endpoint, Metrics())
    telemetry.decided([make_row(), make_row(verdict="allow", reason="cidr", name="", protocol="udp", bytes_out=0)])
    telemetry.close()
    collector.wait_for(records=2)
    denied, allowed = collector.records
    assert (denied.severity_text, allowed.severity_text) == ("WARN", "INFO")
    assert denied.time_unix_nano == 1_700_000_000_123_000_000
    assert denied.event_name == "outgate.decision"
    assert values_of(denied.attributes) == {
        "network.transport": "tcp",
        "network.protocol.name": "tls",
        "network.peer.address": "192.0.2.1",
        "server.address": "x.example",
        "server.port": 443,
        "outgate.verdict": "deny",
        "outgate.reason": "no_rule",
        "outgate.point": "relay",
        "outgate.account.id": "acct_1",
        "outgate.devbox.id": "dbx_1",
        "outgate.policy.id": "npol_1",
        "outgate.policy.revision": 3,
        "outgate.count": 2,
    }
    told = values_of(allowed.attributes)
    assert (told["server.address"], told["network.transport"], told["outgate.bytes_out"]) == ("192.0.2.1", "udp", 0)
    assert "network.protocol.name" not in told


def test_a_dead_collector_is_told_of_once_and_counted_and_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outgate.api.otel_export.CLOSE_S_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"http://127.0.0.1:{deaf.getsockname()[1]}"
    metrics = Metrics()
    with structlog.testing.capture_logs() as lines:
        telemetry = OtelTelemetry(endpoint, metrics)
        for _ in range(QUEUE_MAX + 100):
            with telemetry.request() as span, telemetry.enforcing():
                span.end(ANSWERED)
        telemetry.decided([make_row()])
        telemetry.close()
    assert [line["event"] for line in lines] == ["otel_failed"]
    (failures,) = [
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "outgate_otel_failures_total"
    ]
    assert failures >= 1


def test_without_the_extra_the_setting_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "outgate.api.otel_export")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingError, match=r"OUTGATE_OTEL_ENDPOINT .*pip install outgate\[otel\]"):
        otel.load_otel()


def test_without_a_collector_nothing_of_it_is_imported() -> None:
    program = (
        "import sys, outgate.api.serve as serve; serve.Applications.make();"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
