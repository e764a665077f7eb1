"""``GET /metrics``: who may read it, and what it says."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from outgate.control import exposition
from outgate.control.configuration import ApiSettings
from outgate.control.host_measures import FORGOTTEN_S, HostMeasurements
from outgate.control.metric_table import METRICS
from outgate.model.desired import FlowBatch, FlowRecord
from outgate.model.measures import HostMeasures
from outgate.store.errors import StoreError
from support.api_server import HOST_TOKEN, ApiServer
from support.measures import denial, gate_measures, host_measures, latency

TOKEN = "token-of-the-metrics"  # noqa: S105 - of the tests


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ApiServer]:
    """A server whose numbers no other test changes."""
    with ApiServer(tmp_path) as running:
        yield running


def read(server: ApiServer) -> dict[str, Metric]:
    answer = httpx.get(f"{server.base_url}/metrics", timeout=20)
    assert answer.status_code == 200, answer.text
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    """The one sample of that name with at least these labels."""
    samples = [sample for family in families.values() for sample in family.samples if sample.name == name]
    (found,) = [sample.value for sample in samples if labels.items() <= sample.labels.items()]
    return found


def read_until(server: ApiServer, name: str, wanted: float, **labels: str) -> dict[str, Metric]:
    """What is read once that sample is as wanted; a request counts when its answer has been sent."""
    deadline_s = time.monotonic() + 30
    while True:
        families = read(server)
        samples = [sample for family in families.values() for sample in family.samples if sample.name == name]
        if [sample.value for sample in samples if labels.items() <= sample.labels.items()] == [wanted]:
            return families
        assert time.monotonic() < deadline_s, samples
        time.sleep(0.02)


def send(server: ApiServer, content: bytes, path: str = "measures") -> httpx.Response:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    headers = {"authorization": f"Bearer {HOST_TOKEN}"}
    with httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=20) as host:
        return host.post(f"/internal/v1/{path}", content=content)


def tell(server: ApiServer, measures: HostMeasures) -> None:
    assert send(server, msgspec.json.encode(measures)).status_code == 200


# Who may read


def test_this_host_reads_without_a_token(server: ApiServer) -> None:
    answer = httpx.get(f"{server.base_url}/metrics", timeout=20)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("header", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"])
def test_a_proxy_on_this_host_is_not_this_host(server: ApiServer, header: str) -> None:
    answer = httpx.get(f"{server.base_url}/metrics", headers={header: "127.0.0.1"}, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "OUTGATE_METRICS_TOKEN" in answer.json()["message"]
    assert "outgate_build_info" not in answer.text


def test_with_a_token_nobody_reads_without_it(tmp_path: Path) -> None:
    with ApiServer(tmp_path, ApiSettings(metrics_token=TOKEN, auth_failures_max=1)) as running:
        url = f"{running.base_url}/metrics"
        key = running.new_account("a").api_key
        assert httpx.get(url, timeout=20).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}", "x-forwarded-for": "192.0.2.1"}
        assert httpx.get(url, headers=right, timeout=20).status_code == 200
        wrong = [httpx.get(url, headers={"authorization": f"Bearer {key}"}, timeout=20) for _ in range(2)]
        assert [answer.status_code for answer in wrong] == [401, 429]
        told = httpx.get(url, headers=right, timeout=20)
        assert told.status_code == 200  # a right token that was shown before is not locked out
        assert 'outgate_auth_failures_total{kind="metrics_token"} 1.0' in told.text


@pytest.mark.parametrize("version", ["1.0.0", "x", "1.x", "", "9" * 50])
def test_openmetrics_is_answered_to_who_asks_for_it(server: ApiServer, version: str) -> None:
    headers = {"accept": f"application/openmetrics-text;version={version}"}
    answer = httpx.get(f"{server.base_url}/metrics", headers=headers, timeout=20)
    assert answer.status_code == 200
    if version == "1.0.0":
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert {"outgate_build_info", "outgate_api_requests"} <= {
            family.name
            for family in parse_openmetrics(answer.text)  # type: ignore[no-untyped-call] # the package lacks it
        }


# What it says


def test_every_metric_of_the_table_is_there_as_the_table_has_it(own: ApiServer) -> None:
    client = httpx.Client(base_url=own.base_url, timeout=20)
    with client:
        key = {"authorization": f"Bearer {own.new_account('a').api_key}"}
        assert client.get("/v1/accounts/me", headers=key).status_code == 200
        assert client.get("/v1/accounts/me", headers={"authorization": "Bearer no"}).status_code == 401
        assert client.post("/v1/devboxes", headers=key, json={}).status_code == 200
    tell(own, host_measures(denial(), gate=gate_measures()))
    families = read_until(own, "outgate_api_requests_total", 1, route="/v1/devboxes")
    shown = {
        name: (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
        for name, family in families.items()
        if name.startswith("outgate_")
    }
    assert shown == {metric.name: (metric.kind.value, set(metric.labels)) for metric in METRICS}


def test_numbers_of_a_host_arrive_under_its_id(own: ApiServer) -> None:
    gate = gate_measures(denial(count=2), dns_denied=latency(0.00005, 0.02, 20.0), records_dropped=9)
    tell(own, host_measures(denial(count=40), gate=gate))
    families = read(own)
    (host,) = {sample.labels["host"] for sample in families["outgate_host_enforcing"].samples}
    assert value(families, "outgate_decisions_total", host=host, point="dns", verdict="deny", reason="no_rule") == 42
    assert value(families, "outgate_dns_seconds_count", host=host, answer="denied") == 3
    assert value(families, "outgate_dns_seconds_sum", host=host, answer="denied") == pytest.approx(20.02005)
    buckets = {bound: value(families, "outgate_dns_seconds_bucket", answer="denied", le=bound) for bound in BOUNDS}
    assert list(buckets.values()) == [1, 2, 2, 3]
    assert value(families, "outgate_flow_records_dropped_total", host=host, stage="gate") == 9
    assert value(families, "outgate_relayed_flows") == 2


BOUNDS = ("0.0001", "0.025", "10.0", "+Inf")


def test_late_measures_of_the_same_life_do_not_turn_numbers_back(own: ApiServer) -> None:
    tell(own, host_measures(number=5, gate_restarts=3))
    tell(own, host_measures(number=4, gate_restarts=2))
    assert value(read(own), "outgate_gate_restarts_total") == 3
    tell(own, host_measures(boot_id="another", number=1))
    assert value(read(own), "outgate_gate_restarts_total") == 0


def test_a_host_without_a_gate_has_none_of_its_numbers(own: ApiServer) -> None:
    tell(own, host_measures(gate=None))
    assert "outgate_pins" not in read(own)
    assert value(read(own), "outgate_apply_seconds_count", step="round") == 1


def test_a_silent_host_is_forgotten() -> None:
    known = HostMeasurements()
    known.take("host_1", host_measures(), 100.0)
    known.take("host_2", host_measures(), 101.0)
    assert [host for host, _ in known.recent(100.0 + FORGOTTEN_S)] == ["host_1", "host_2"]
    assert [host for host, _ in known.recent(100.5 + FORGOTTEN_S)] == ["host_2"]
    assert [host for host, _ in known.recent(101.0)] == ["host_2"]


def test_a_host_can_neither_invent_labels_nor_send_what_is_no_number(own: ApiServer) -> None:
    tell(own, host_measures(*(denial(f'"}} {number}') for number in range(500))))
    reasons = {sample.labels["reason"] for sample in read(own)["outgate_decisions"].samples}
    assert reasons == {"other"}
    broken = msgspec.to_builtins(host_measures()) | {"number": "7"}
    answer = send(own, msgspec.json.encode(broken))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_value")


def test_requests_count_by_template_and_never_by_what_was_asked_for(own: ApiServer) -> None:
    with httpx.Client(base_url=own.base_url, timeout=20) as client:
        client.headers["authorization"] = f"Bearer {own.new_account('a').api_key}"
        for number in range(3):
            client.get(f"/v1/devboxes/dbx_{number}")
            client.get(f"/nothing/{number}?secret=x")
            client.request(f"METHOD{number}", "/v1/devboxes")
    # The last request of all: the others' answers were read before it was sent.
    families = read_until(own, "outgate_api_requests_total", 3, method="other", status="405")
    assert value(families, "outgate_api_requests_total", route="/v1/devboxes/{id}", status="404") == 3
    assert value(families, "outgate_api_request_seconds_count", route="/v1/devboxes/{id}") == 3
    assert value(families, "outgate_api_requests_total", route="unmatched", status="404") == 3


def update_policy(server: ApiServer) -> str:
    """Update a policy that a devbox uses; where it is in force by then."""
    with httpx.Client(base_url=server.base_url, timeout=50) as client:
        client.headers["authorization"] = f"Bearer {server.new_account('a').api_key}"
        policy = client.post("/v1/network-policies", json={"name": "p"}).json()["id"]
        client.post("/v1/devboxes", json={"launch_parameters": {"network_policy_id": policy}})
        answer = client.post(f"/v1/network-policies/{policy}", json={"allowed_hostnames": ["a.example"]})
        return answer.headers["x-outgate-enforced"]


def test_an_update_counts_from_its_commit_to_being_in_force(tmp_path: Path) -> None:
    with ApiServer(tmp_path, ApiSettings(enforce_wait_s_max=40)) as running:
        assert update_policy(running) == "1/1"
        families = read(running)
        assert value(families, "outgate_update_enforced_seconds_count") == 1
        assert value(families, "outgate_updates_late_total") == 0
        # Its devbox came to run meanwhile, which is a change of its own.
        deadline_s = time.monotonic() + 40
        while value(families, "outgate_enforcement_lag_revisions") and time.monotonic() < deadline_s:
            time.sleep(0.05)
            families = read(running)
        assert value(families, "outgate_enforcement_lag_revisions") == 0
        assert value(families, "outgate_enforced_revision") >= value(families, "outgate_wanted_revision") > 0


def test_an_update_that_is_not_in_force_in_time_counts_as_late(tmp_path: Path) -> None:
    server = ApiServer(tmp_path, ApiSettings(enforce_wait_s_max=0.1))
    server.agent.enforces = False
    with server as running:
        assert update_policy(running) == "0/1"
        families = read(running)
        assert value(families, "outgate_updates_late_total") == 1
        assert value(families, "outgate_update_enforced_seconds_count") == 0
        assert value(families, "outgate_enforcement_lag_revisions") == value(families, "outgate_wanted_revision") > 0


def test_records_that_were_stored_count_and_foreign_ones_apart(own: ApiServer) -> None:
    with httpx.Client(base_url=own.base_url, timeout=20) as client:
        client.headers["authorization"] = f"Bearer {own.new_account('a').api_key}"
        devbox = client.post("/v1/devboxes", json={}).json()["id"]
    records = tuple(FlowRecord(1, box, "npol_1", 1, "deny", "no_rule", "dns") for box in (devbox, devbox, "dbx_none"))
    batch = msgspec.json.encode(FlowBatch("boot", 1, records))
    for _ in range(2):  # the second is known again
        assert send(own, batch, "flows").status_code == 200
    families = read(own)
    assert value(families, "outgate_flow_records_stored_total") == 2
    assert value(families, "outgate_flow_records_foreign_total") == 1
    assert sum(sample.value for sample in families["outgate_devboxes"].samples) == 1


def test_the_own_numbers_are_there_when_the_store_is_not(own: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_connection: object) -> None:
        raise StoreError("The disk is gone.")

    monkeypatch.setattr(exposition, "read_installation", fail)
    families = read(own)
    assert value(families, "outgate_store_up") == 0
    assert value(families, "outgate_build_info") == 1
    assert "outgate_host_enforcing" not in families
