"""What doctor makes of what it sees: grades, remedies, and what it leaves out from where it cannot look."""

import contextlib
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from outgate.cli import main
from outgate.cli.doctor import command, installation
from outgate.cli.doctor.findings import Finding, Grade
from outgate.cli.doctor.host import check_core_pattern, check_descriptors
from outgate.cli.doctor.installation import (
    check_path,
    check_service_settings,
    check_space,
    check_store,
    grade_certificate,
)
from outgate.cli.doctor.network import ask_resolver, grade_flow_table
from outgate.cli.doctor.running import grade_health, grade_host, grade_skew
from outgate.dataplane.dns_exchange import ServerAddress
from outgate.dataplane.flow_table import FlowTableFill
from outgate.privileges import Identity
from outgate.settings import load_settings
from outgate.store.engine import open_engines
from outgate.store.migrate import load_migrations, migrate

HOST: Mapping[str, Any] = {
    "name": "local",
    "enforcing": True,
    "revision_wanted": 7,
    "revision_enforced": 7,
    "report_age_ms": 3_000,
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("finding", "grade"),
    [
        (check_core_pattern("core.%p"), Grade.PASS),
        (check_core_pattern("|/bin/false"), Grade.PASS),
        (check_core_pattern("|/lib/systemd/systemd-coredump %P"), Grade.WARN),
        (check_descriptors(1024), Grade.WARN),
        (check_descriptors(1_048_576), Grade.PASS),
        (check_descriptors(resource.RLIM_INFINITY), Grade.PASS),
        (check_space(Path("/x"), 100), Grade.FAIL),
        (check_space(Path("/x"), 1_000), Grade.WARN),
        (check_space(Path("/x"), 10_000), Grade.PASS),
        (grade_certificate(NOW, NOW, "renew"), Grade.FAIL),
        (grade_certificate(NOW + timedelta(days=29), NOW, "renew"), Grade.WARN),
        (grade_certificate(NOW + timedelta(days=31), NOW, "renew"), Grade.PASS),
        (grade_flow_table(FlowTableFill(79, 100)), Grade.PASS),
        (grade_flow_table(FlowTableFill(80, 100)), Grade.WARN),
        (grade_skew(1_000, 900, 1_100), Grade.PASS),
        (grade_skew(6_000, 900, 1_100), Grade.PASS),
        (grade_skew(9_000, 900, 1_100), Grade.WARN),
        (grade_skew(1_000, 60_000, 60_100), Grade.WARN),
    ],
)
def test_a_grade_comes_with_a_remedy_unless_all_is_well(finding: Finding, grade: Grade) -> None:
    assert finding.grade is grade
    assert bool(finding.remedy) == (grade is not Grade.PASS)


def _grades(findings: Iterator[Finding]) -> dict[str, Grade]:
    return {finding.name.removeprefix("host local: "): finding.grade for finding in findings}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"agent": Grade.PASS, "revision": Grade.PASS, "gate": Grade.PASS}),
        ({"revision_wanted": 8}, {"agent": Grade.PASS, "revision": Grade.WARN, "gate": Grade.PASS}),
        ({"report_age_ms": 61_000}, {"agent": Grade.FAIL}),
        ({"report_age_ms": None}, {"agent": Grade.FAIL}),
        ({"enforcing": False}, {"agent": Grade.FAIL}),
    ],
)
def test_a_host_is_its_agent_its_revision_and_its_gate(
    change: Mapping[str, object], expected: Mapping[str, Grade]
) -> None:
    assert _grades(grade_host({**HOST, **change}, set())) == expected


def test_a_gate_that_is_down_is_a_failure_and_each_warning_is_shown_with_where_to_read_on() -> None:
    warning = {"host": "local", "code": "gate_down", "text": "The gate is down (why)."}
    findings = [*grade_health("enforcing", {"hosts": [HOST], "warnings": [warning]})]
    assert _grades(iter(findings))["gate"] is Grade.FAIL
    assert (findings[-1].grade, findings[-1].seen) == (Grade.WARN, "The gate is down (why).")
    assert "`gate_down`" in findings[-1].remedy
    failed = [*grade_health("not_enforcing", {"message": "There is no host yet; start an agent."})]
    assert [(finding.grade, finding.seen) for finding in failed] == [
        (Grade.FAIL, "There is no host yet; start an agent.")
    ]


def test_owners_and_modes(tmp_path: Path) -> None:
    secret = tmp_path / "api-key"
    secret.touch(0o600)
    me = os.getuid()
    assert check_path(secret, owner=me, forbidden=0o077).grade is Grade.PASS
    secret.chmod(0o640)
    opened = check_path(secret, owner=me, forbidden=0o077)
    assert (opened.grade, opened.remedy) == (Grade.FAIL, f"chmod 0600 {secret}")
    assert check_path(secret, owner=me + 1, forbidden=0).remedy == f"chown {me + 1} {secret}"
    assert check_path(tmp_path / "missing", owner=me, forbidden=0).grade is Grade.FAIL


def test_settings_that_only_the_service_is_given_are_named(tmp_path: Path) -> None:
    file = tmp_path / "outgate.env"
    assert list(check_service_settings({}, file)) == []
    lines = ["# OUTGATE_LISTEN=127.0.0.1:1", "", "OUTGATE_GATE_USER='bin'", "OUTGATE_UPSTREAM_DNS=192.0.2.53", "LANG=C"]
    file.write_text("\n".join(lines))
    (found,) = check_service_settings({"OUTGATE_GATE_USER": "bin"}, file)
    assert found.grade is Grade.WARN
    assert "OUTGATE_UPSTREAM_DNS" in found.seen
    assert "OUTGATE_GATE_USER" not in found.seen
    assert str(file) in found.remedy
    assert list(check_service_settings({"OUTGATE_GATE_USER": "bin", "OUTGATE_UPSTREAM_DNS": "192.0.2.53"}, file)) == []


def test_the_store_is_looked_at_and_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "acting_as", lambda _identity: contextlib.nullcontext())
    settings, me = load_settings(state_dir=tmp_path), Identity(os.getuid(), os.getgid())
    assert "no database" in check_store(settings, me).seen
    assert not (tmp_path / "api").exists()
    settings.api_dir.mkdir()
    engines = open_engines(settings.store_url)
    try:
        assert "It lacks" in check_store(settings, me).seen
        migrate(engines.writer, load_migrations())
    finally:
        engines.reader.dispose()
        engines.writer.dispose()
    assert check_store(settings, me).grade is Grade.PASS
    elsewhere = load_settings(state_dir=tmp_path, database_url="postgresql+psycopg://u:pass-word@127.0.0.1:9/x")
    failed = check_store(elsewhere, me)
    assert failed.grade is Grade.FAIL
    assert "pass-word" not in failed.seen


def test_a_resolver_is_asked_by_the_gates_own_client() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        asked: list[bytes] = []

        def answer() -> None:
            query, client = server.recvfrom(4096)
            asked.append(query)
            question = query[12 : query.index(b"\0", 12) + 5]
            server.sendto(query[:2] + b"\x81\x80" + b"\0\1\0\0\0\0\0\0" + question, client)

        thread = threading.Thread(target=answer)
        thread.start()
        assert ask_resolver(ServerAddress("127.0.0.1", server.getsockname()[1])) is None
        thread.join()
    assert asked[0][12:17] == b"\0\0\2\0\1"  # the root's name servers: it names nobody
    assert "cannot be reached" in str(ask_resolver(ServerAddress("127.0.0.1", 9)))


def _run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    monkeypatch.setattr("sys.argv", ["outgate", "doctor", "--json", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    return int(end.value.code or 0), json.loads(capsys.readouterr().out)


@pytest.fixture
def healthy() -> Iterator[str]:
    """A server that is well; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/healthz":
                body: object = {"status": "enforcing", "message": "", "warnings": [], "hosts": [HOST]}
            else:
                body = {"id": "acct_1"}
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("module_says", "why"),
    [({"is_root": False}, "they need root"), ({"is_elsewhere": True}, "the server is on another machine")],
)
def test_what_cannot_be_seen_from_here_is_left_out_and_said_so(
    healthy: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module_says: Mapping[str, bool],
    why: str,
) -> None:
    for name, said in module_says.items():
        monkeypatch.setattr(command, name, lambda *_, said=said: said)
    code, found = _run(["--url", healthy, "--api-key", "key-of-the-test"], monkeypatch, capsys)
    assert (code, found["can_serve"], found["counts"]["fail"]) == (0, None, 0)
    skipped = {check["group"]: check["seen"] for check in found["checks"] if check["grade"] == "skip"}
    assert skipped == dict.fromkeys(("host", "installation", "network"), why)
    assert {"enforcement", "api key", "host local: gate"} <= {
        check["name"] for check in found["checks"] if check["grade"] == "pass"
    }


def test_a_server_that_does_not_answer_is_a_failure_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "is_root", lambda: False)
    code, found = _run(["--url", "http://127.0.0.1:9", "--api-key", "key-of-the-test"], monkeypatch, capsys)
    (failed,) = (check for check in found["checks"] if check["grade"] == "fail")
    assert (code, failed["name"]) == (1, "api")
    assert "systemctl start outgate" in failed["remedy"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, False),
        ("http://localhost:8080", False),
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://10.0.0.7:8080", True),
        ("https://api.example.com", True),
    ],
)
def test_whether_the_server_is_elsewhere(url: str | None, *, expected: bool) -> None:
    assert command.is_elsewhere(url) is expected
