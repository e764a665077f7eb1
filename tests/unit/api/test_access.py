"""One canonical line for each request, and one id for it everywhere."""

import threading
from typing import Any

import httpx
import pytest
import structlog

from outgate.api import access
from support.api_server import ApiServer


class Lines:
    """What was logged of requests, as structlog takes it."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, dict[str, Any]]] = []
        self._news = threading.Condition()

    def info(self, event: str, **values: Any) -> None:
        self._take("info", event, values)

    def debug(self, event: str, **values: Any) -> None:
        self._take("debug", event, values)

    def of(self, request_id: str) -> tuple[str, str, dict[str, Any]]:
        """The one line of that request; it is written after the answer was sent."""
        with self._news:
            assert self._news.wait_for(lambda: self._find(request_id), 30)
            (line,) = self._find(request_id)
        return line

    def _find(self, request_id: str) -> list[tuple[str, str, dict[str, Any]]]:
        return [line for line in self.taken if line[2]["request_id"] == request_id]

    def _take(self, level: str, event: str, values: dict[str, Any]) -> None:
        with self._news:
            self.taken.append((level, event, values))
            self._news.notify_all()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    taken = Lines()
    monkeypatch.setattr(access, "_log", taken)
    return taken


ID = "x-outgate-request-id"


def test_a_request_with_a_key_is_one_line_at_info(client: httpx.Client, policy_id: str, lines: Lines) -> None:
    answer = client.get(f"/v1/network-policies/{policy_id}?x=secret-of-a-query")
    level, event, values = lines.of(answer.headers[ID])
    assert (level, event) == ("info", "request")
    assert values.pop("duration_ms") >= 0
    account = client.get("/v1/accounts/me").json()["id"]
    assert values.pop("key_id").startswith("key_")
    assert values == {
        "method": "GET",
        "route": "/v1/network-policies/{id}",
        "status": 200,
        "account_id": account,
        "request_id": answer.headers[ID],
    }
    assert policy_id not in str(lines.taken)
    assert "secret-of-a-query" not in str(lines.taken)


def test_an_error_has_one_id_in_header_body_and_line(client: httpx.Client, lines: Lines) -> None:
    for path, status in (("/v1/network-policies/npol_none", 404), ("/nothing", 404), ("/v1/devboxes?limit=x", 400)):
        answer = client.get(path)
        assert answer.json()["request_id"] == answer.headers[ID]
        assert lines.of(answer.headers[ID])[2]["status"] == answer.status_code == status


def test_a_stranger_is_another_kind_of_line(server: ApiServer, lines: Lines) -> None:
    answer = httpx.get(f"{server.base_url}/v1/devboxes", headers={"authorization": "Bearer wrong-key"}, timeout=20)
    level, event, values = lines.of(answer.headers[ID])
    assert (level, event, values["status"], values["account_id"]) == ("info", "stranger", 401, None)
    assert "wrong-key" not in str(lines.taken)


def test_probes_are_for_debugging(server: ApiServer, lines: Lines) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        answer = httpx.get(f"{server.base_url}{path}", timeout=20)
        level, event, values = lines.of(answer.headers[ID])
        assert (level, event, values["route"]) == ("debug", "probe", path)


def test_a_defect_is_a_line_too_and_names_the_id_of_its_answer(
    server: ApiServer, client: httpx.Client, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect of the test")

    monkeypatch.setattr("outgate.api.accounts.respond", fail)
    with structlog.testing.capture_logs():
        answer = client.get("/v1/accounts/me")
    assert answer.status_code == 500
    assert lines.of(answer.json()["request_id"])[2]["status"] == 500
