"""Wrong keys: how many one client may show, who else notices, and what clients and the log are told."""

import asyncio
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from runloop_api_client import AuthenticationError, RateLimitError, Runloop

from outgate.control.attempts import Attempts
from outgate.control.configuration import ApiSettings
from outgate.control.errors import TooManyAttemptsError
from support.api_server import ApiServer

FAILURES_MAX = 6
PATH = "/v1/network-policies"
HERE, THERE = "127.0.0.11", "127.0.0.12"


@dataclass
class Clock:
    """Stands still unless a test moves it."""

    now_s: float = 1000.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("outgate.control.attempts.monotonic_s", lambda: made.now_s)
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    """A server of its own for each test: failures are remembered by address."""
    with ApiServer(tmp_path, ApiSettings(auth_failures_max=FAILURES_MAX)) as running:
        yield running


def ask(server: ApiServer, key: str | None, address: str = HERE, path: str = PATH, **headers: str) -> Answer:
    """One request from that address, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=40, source_address=(address, 0))
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(connection):
        connection.request("GET", path, headers=given | ({"authorization": f"Bearer {key}"} if key else {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())


def exhaust(server: ApiServer, address: str = HERE) -> None:
    """Show wrong keys until none is looked at any more."""
    codes = [ask(server, f"wrong-{number}", address).status for number in range(FAILURES_MAX + 2)]
    assert codes == [401] * FAILURES_MAX + [429] * 2


def test_after_some_wrong_keys_none_is_looked_at_and_the_answer_says_when_to_come_again(
    server: ApiServer, clock: Clock
) -> None:
    key = server.new_account("own").api_key
    exhaust(server)
    answer = ask(server, key)
    assert (answer.status, answer.json()["code"]) == (429, "too_many_attempts")
    assert answer.headers["retry-after"] == "10"
    assert answer.headers["x-should-retry"] == "true"
    assert "was not looked at" in answer.json()["message"]
    assert key not in answer.text
    clock.now_s += 10
    assert ask(server, key).status == 200


def test_a_valid_key_from_another_address_is_never_locked_out(server: ApiServer) -> None:
    key = server.new_account("own").api_key
    exhaust(server)
    assert ask(server, key, THERE).status == 200
    assert ask(server, key, HERE).status == 429, "that it was right elsewhere helps nobody here"


def test_whoever_worked_from_the_address_before_works_on(server: ApiServer) -> None:
    key = server.new_account("own").api_key
    assert ask(server, key).status == 200
    exhaust(server)
    assert ask(server, key).status == 200
    assert ask(server, "wrong again").status == 429


def test_a_guess_that_is_right_is_worth_nothing_while_the_client_has_to_wait(server: ApiServer) -> None:
    guessed = server.new_account("guessed").api_key
    assert ask(server, guessed, THERE).status == 200, "the server knows the key without looking"
    exhaust(server)
    assert ask(server, guessed, HERE).status == 429


def test_guesses_at_the_same_time_are_counted_one_by_one(server: ApiServer) -> None:
    with ThreadPoolExecutor(24) as pool:
        codes = list(pool.map(lambda number: ask(server, f"wrong-{number}").status, range(48)))
    assert (codes.count(401), codes.count(429)) == (FAILURES_MAX, 48 - FAILURES_MAX)


def test_a_new_key_that_is_shown_many_times_at_once_is_one_attempt(server: ApiServer) -> None:
    key = server.new_account("own").api_key
    with ThreadPoolExecutor(24) as pool:
        codes = list(pool.map(lambda _: ask(server, key).status, range(48)))
    assert set(codes) == {200}


def test_requests_without_a_key_and_pages_for_everybody_are_no_attempts(server: ApiServer) -> None:
    key = server.new_account("own").api_key
    for _ in range(3 * FAILURES_MAX):
        assert ask(server, None).status == 401
        assert ask(server, None, path="/healthz").status == 200
    assert ask(server, key).status == 200


def test_a_misconfigured_official_client_sees_401_and_later_429(server: ApiServer) -> None:
    client = Runloop(base_url=server.base_url, bearer_token="no such key", max_retries=0)
    for _ in range(FAILURES_MAX):
        with pytest.raises(AuthenticationError, match="API key is not valid"):
            client.network_policies.list()
    with pytest.raises(RateLimitError, match="Too many keys that are not valid"):
        client.network_policies.list()


def test_the_official_client_waits_and_gets_its_answer(tmp_path: Path, clock: Clock) -> None:
    told = []

    def note(response: httpx.Response) -> None:
        if response.status_code == 429:
            told.append(response.headers["retry-after"])
            clock.now_s += int(told[-1])

    with ApiServer(tmp_path, ApiSettings()) as server, httpx.Client(event_hooks={"response": [note]}) as carrier:
        key = server.new_account("own").api_key
        for number in range(ApiSettings().auth_failures_max):
            assert ask(server, f"wrong-{number}", "127.0.0.1").status == 401
        client = Runloop(base_url=server.base_url, bearer_token=key, max_retries=1, http_client=carrier)
        assert client.network_policies.list().network_policies == []
    assert told == ["1"]


def test_x_forwarded_for_means_nothing_unless_a_setting_names_the_proxy(server: ApiServer) -> None:
    key = server.new_account("own").api_key
    for number in range(FAILURES_MAX):
        assert ask(server, "wrong", x_forwarded_for=f"192.0.2.{number}").status == 401
    assert ask(server, key, x_forwarded_for="192.0.2.200").status == 429


def test_behind_a_proxy_that_a_setting_names_each_client_is_its_own(tmp_path: Path) -> None:
    settings = ApiSettings(auth_failures_max=FAILURES_MAX, proxies=(ip_network("127.0.0.11/32"),))
    with ApiServer(tmp_path, settings) as server:
        key = server.new_account("own").api_key
        attacker, honest = {"x_forwarded_for": "made.up, 192.0.2.66"}, {"x_forwarded_for": "192.0.2.7"}
        for _ in range(FAILURES_MAX):
            assert ask(server, "wrong", **attacker).status == 401
        assert ask(server, key, **attacker).status == 429
        assert ask(server, key, **honest).status == 200
        # Whoever is no proxy of the setting's cannot say that it is somebody else.
        for _ in range(FAILURES_MAX):
            assert ask(server, "wrong", THERE, **honest).status == 401
        assert ask(server, key, THERE, x_forwarded_for="192.0.2.8").status == 429


def test_the_limit_can_be_turned_off(tmp_path: Path) -> None:
    with ApiServer(tmp_path, ApiSettings(auth_failures_max=0)) as server:
        codes = {ask(server, f"wrong-{number}").status for number in range(100)}
    assert codes == {401}


def test_a_host_token_is_bounded_as_well(server: ApiServer) -> None:
    transport = httpx.HTTPTransport(uds=str(server.socket_path))
    with httpx.Client(transport=transport, base_url="http://api") as client:
        codes = [
            client.post("/internal/v1/report", headers={"authorization": f"Bearer wrong-{number}"}).status_code
            for number in range(FAILURES_MAX + 3)
        ]
    assert codes[0] == 401
    assert codes[-1] == 429
    # The agent showed its token before, and goes on: this needs its report.
    with server.client(server.new_account("own").api_key) as client:
        made = client.post("/v1/devboxes/create_and_await_running", json={})
        assert made.json()["status"] == "running"


def test_the_log_tells_it_once_and_without_the_key() -> None:
    attempts = Attempts("API key")

    async def find() -> None:
        return None

    async def show_many() -> None:
        for number in range(20):
            try:
                await attempts.look("192.0.2.1", b"secret-%d" % number, 5, find)
            except TooManyAttemptsError:
                continue

    with structlog.testing.capture_logs() as lines:
        asyncio.run(show_many())
    assert [line["event"] for line in lines] == ["too many wrong keys"]
    assert (lines[0]["client"], lines[0]["what"], lines[0]["log_level"]) == ("192.0.2.1", "API key", "warning")
    assert "secret" not in str(lines)


def test_a_store_that_fails_makes_no_wrong_key() -> None:
    attempts = Attempts("API key")

    async def find() -> str:
        raise OSError("no store")

    async def show_many() -> int:
        failures = 0
        for _ in range(20):
            try:
                await attempts.look("192.0.2.1", b"right", 5, find)
            except OSError:
                failures += 1
        return failures

    assert asyncio.run(show_many()) == 20
