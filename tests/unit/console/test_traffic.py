"""Devboxes, flows, the picture and health in the console."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from outgate.clock import wall_ms
from outgate.console.advice import find_advice
from outgate.console.picture import draw_bars, find_level, is_name
from outgate.control.conversations import DEVBOXES_MAX, HOSTS_MAX, OTHERS, STEPS, Tally, gather
from outgate.model.desired import HostReport, HostWarning
from outgate.store.flows import FlowSum
from support.api_server import HOST_TOKEN, ApiServer
from support.console import Teller, Visitor, make_devbox, plain, visiting

DENIED = {"verdict": "deny", "reason": "no_rule", "point": "dns", "protocol": ""}
SENTENCE = "never.example is not covered by policy 'ci': add it to allowed_hostnames."


def test_a_devbox_says_what_it_was_denied_and_what_to_change(
    visitor: Visitor, policy_id: str, devbox_id: str, teller: Teller
) -> None:
    kind = {**DENIED, "name": "never.example", "sentence": SENTENCE}
    teller.tell(
        devbox_id, policy_id, {**kind, "count": 2}, {**DENIED, "name": "other.example", "sentence": "Other."}, kind
    )
    said = plain(visitor.see(f"/console/devboxes/{devbox_id}"))
    assert said.index(SENTENCE) < said.index("Other."), "the newest first"
    assert "3 times, last" in said
    assert "In force" in said
    assert "ci revision 1" in said
    assert "TCP to 2 hosts by name: kept.example and lost.example." in said


def test_devboxes_stand_with_their_state_policy_and_enforcement(
    visitor: Visitor, client: httpx.Client, policy_id: str
) -> None:
    running, ended = make_devbox(client, policy_id, name="builder"), make_devbox(client, policy_id)
    client.post(f"/v1/devboxes/{ended}/shutdown")
    rows = plain(visitor.see("/console/devboxes"))
    assert re.search(rf"builder {running} running ci In force local", rows)
    assert re.search(rf"{ended} shutdown ci Does not run local", rows)
    only = visitor.see("/console/devboxes?status=running")
    assert (running in only, ended in only) == (True, False)
    assert "There is none in this state" in visitor.see("/console/devboxes?status=failure")
    without = client.post("/v1/devboxes/create_and_await_running", json={}).json()["id"]
    assert "default: allow all" in plain(visitor.see(f"/console/devboxes/{without}"))


def test_flows_are_filtered_and_come_in_pages(visitor: Visitor, policy_id: str, devbox_id: str, teller: Teller) -> None:
    teller.tell(
        devbox_id, policy_id, *({"name": f"n{n}.example", "address": "1.2.3.4", "port": 443} for n in range(101))
    )
    teller.tell(devbox_id, policy_id, {**DENIED, "name": "never.example", "sentence": SENTENCE})
    newest = visitor.see("/console/flows")
    said = plain(newest)
    assert said.index("never.example") < said.index("n100.example") < said.index("n2.example")
    assert "n1.example" not in newest
    older = re.search(r'href="(\?before=[^"]+)"', newest)
    assert older is not None
    rest = visitor.see("/console/flows" + older[1].replace("&amp;", "&"))
    assert [f"n{n}.example" in rest for n in (0, 1, 2)] == [True, True, False]
    assert "data-stream" not in rest
    for query, shown in (
        ("verdict=deny", ["never.example"]),
        ("hostname=N7.example.", ["n7.example"]),
        (f"devbox_id={devbox_id}&policy_id={policy_id}&hostname=n3.example", ["n3.example"]),
        ("devbox_id=dbx_other", []),
    ):
        names = re.findall(r'<span class="place">([a-z0-9.]+)', visitor.see(f"/console/flows?{query}"))
        assert names == shown, query
    assert "Nothing matches" in visitor.see("/console/flows?verdict=report_only")


def events(lines: Iterator[str]) -> Iterator[dict[str, object]]:
    return (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def test_the_stream_brings_rows_to_who_is_signed_in_and_ends_with_the_session(
    visitor: Visitor, stranger: Visitor, policy_id: str, devbox_id: str, teller: Teller
) -> None:
    teller.tell(devbox_id, policy_id, {"name": "before.example"})
    last = re.search(r'data-last="(\d+)"', visitor.see("/console/flows"))
    assert last is not None
    query = {"after": last[1], "verdict": "deny"}
    with visitor.client.stream("GET", "/console/flows/stream", params=query) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "default-src 'none'" in stream.headers["content-security-policy"]
        rows = events(stream.iter_lines())
        teller.tell(devbox_id, policy_id, {"name": "allowed.example"}, {**DENIED, "name": "<b>.example"})
        first = next(rows)
        assert first["number"] == int(last[1]) + 2
        assert "&lt;b&gt;.example" in str(first["html"])
        assert str(first["html"]).lstrip().startswith("<tr ")
        visitor.send("/console/sign-out")
        teller.tell(devbox_id, policy_id, {**DENIED, "name": "after.example"})
        assert list(rows) == []
    refused = stranger.get("/console/flows/stream", accept="text/event-stream")
    assert (refused.status_code, refused.text) == (401, "signed out")


def test_the_picture_adds_up_what_happened(
    visitor: Visitor, client: httpx.Client, policy_id: str, teller: Teller
) -> None:
    one, other = make_devbox(client, policy_id, name="one"), make_devbox(client, policy_id)
    now_ms = wall_ms()
    web = {"name": "busy.example", "address": "1.2.3.4", "port": 443}
    teller.tell(one, policy_id, {**web, "time_ms": now_ms - 7_200_000, "count": 5})
    teller.tell(
        one, policy_id, {**web, "count": 7}, {**web, "bytes_out": 1, "bytes_in": 1, "duration_ms": 1, "count": 100}
    )
    teller.tell(other, policy_id, {**DENIED, "name": "never.example", "count": 2}, {"address": "9.9.9.9", "port": 53})
    teller.tell(other, policy_id, {**DENIED, "name": "busy.example", "verdict": "report_only", "count": 4})
    page = visitor.see("/console/picture")
    said = plain(page)
    assert "13 allowed 2 denied 4 let through and reported" in said
    assert f"one …{other[-6:]}" in said
    assert "busy.example ✓ 12 allowed ! 4 let through and reported" in said
    assert "never.example none ✕ 2 denied" in said
    assert "9.9.9.9 none ✓ 1 allowed" in said
    assert 'href="/console/flows?hostname=busy.example"' in page
    assert "hostname=9.9.9.9" not in page
    hour = plain(visitor.see("/console/picture?range=1h"))
    assert "8 allowed 2 denied" in hour
    assert "Nothing was decided in this time" in visitor.see(f"/console/picture?since=1&until={now_ms - 86_400_000}")


def test_only_the_busiest_stand_alone() -> None:
    sums = [FlowSum(f"d{n:02}", f"h{n:02}", "allow", n % STEPS, 100 - n, 1) for n in range(60)]
    found = gather(sums, {}, since_ms=0, until_ms=STEPS)
    assert found.hosts == tuple(f"h{n:02}" for n in range(HOSTS_MAX))
    assert found.devbox_ids == tuple(f"d{n:02}" for n in range(DEVBOXES_MAX))
    assert found.by_host[OTHERS].allowed == sum(100 - n for n in range(HOSTS_MAX, 60))
    assert found.cells["h30", OTHERS].allowed == 70
    assert found.total.allowed == sum(tally.allowed for tally in found.steps) == sum(100 - n for n in range(60))
    assert not found.is_partial


def test_whatever_is_not_zero_can_be_seen() -> None:
    steps = (Tally(allowed=1000, denied=1), Tally(), Tally(reported=1))
    bars = draw_bars(steps, 96)
    assert {(column, name) for column, _, _, name in bars} == {(0, "allowed"), (0, "denied"), (2, "reported")}
    assert all(size >= 2 or top == 0 for _, top, size, _ in bars)
    assert all(0 <= top <= top + size <= 96 for _, top, size, _ in bars)
    assert draw_bars((Tally(), Tally()), 96) == []
    assert [find_level(Tally(allowed=count), 1000) for count in (1, 30, 1000)] == [1, 2, 5]
    assert [is_name(host) for host in ("a.example", "1.2.3.4", "2001:db8::1", "a1.b2c")] == [True, False, False, True]


@pytest.fixture
def unwell(tmp_path: Path) -> Iterator[ApiServer]:
    """A server whose host reports warnings, and does not keep up."""
    with ApiServer(tmp_path) as server:
        yield server


def test_health_names_what_is_wanted_and_enforced_and_what_to_do(unwell: ApiServer) -> None:
    account = unwell.new_account("own")
    with unwell.client(account.api_key) as client, visiting(unwell) as visitor:
        visitor.sign_in(account.api_key)
        made = client.post("/v1/network-policies", json={"name": "ci"}).json()["id"]
        make_devbox(client, made)
        assert "Policies are enforced." in visitor.see("/console/health")
        said = plain(visitor.see("/console/health"))
        revisions = re.search(r"Revision wanted (\d+) Revision enforced (\d+)", said)
        assert revisions is not None
        assert 0 < int(revisions[1]) <= int(revisions[2])
        report(unwell, HostReport(boot_id="boot", url=unwell.agent.url, enforced=0, devboxes=(),
                                  warnings=(HostWarning("gate_down", "It <b>ended</b>."),)))  # fmt: skip
        page = visitor.see("/console/health")
        said = plain(page)
        assert "local Behind" in said
        assert "gate_down It <b>ended</b>. The gate process ended, or did not answer" in said
        assert "&lt;b&gt;ended" in page
        assert "Needs attention" in plain(visitor.see("/console/policies"))
        assert "Update on its way" in plain(visitor.see("/console/devboxes"))


def report(server: ApiServer, said: HostReport) -> None:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    headers = {"authorization": f"Bearer {HOST_TOKEN}"}
    with httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=40) as host:
        assert host.post("/internal/v1/report", content=msgspec.json.encode(said)).status_code == 200


def test_a_host_that_is_gone_is_told_on_each_page(tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    server.has_agent = False
    with server, visiting(server) as visitor:
        visitor.sign_in(server.new_account("own").api_key)
        said = plain(visitor.see("/console/policies"))
        assert "Not enforcing" in said
        assert "the agent of host 'local' is not connected" in said
        assert "The agent of host 'local' is not connected." in plain(visitor.see("/console/health"))


def test_every_warning_that_is_documented_has_its_advice() -> None:
    page = (Path(__file__).parents[3] / "docs/warnings.md").read_text("utf-8")
    codes = re.findall(r"^## `(\w+)`$", page, flags=re.MULTILINE)
    assert len(codes) > 10
    assert all(find_advice(code) for code in codes)
    assert find_advice("api_unreachable").startswith(
        "The agent gets no answer from the api. What was wanted last stays"
    )
    assert find_advice("of_a_newer_version") == ""
