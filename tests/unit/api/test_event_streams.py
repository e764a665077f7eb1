"""Output as server-sent events: whole, from any byte, characters never cut; let go as soon as nobody reads."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.api import event_streams
from outgate.control.output_streams import decode_pieces
from support.api_server import ApiServer

TEXT = "".join(f"line {n} é € 😀\n" for n in range(50))


@pytest.fixture
def api_key(server: ApiServer, request: pytest.FixtureRequest) -> str:
    return server.new_account(request.node.nodeid).api_key


@pytest.fixture
def path(client: httpx.Client) -> Iterator[str]:
    view = client.post("/v1/devboxes/create_and_await_running").json()
    yield f"/v1/devboxes/{view['id']}"
    client.post(f"/v1/devboxes/{view['id']}/shutdown")


def start(client: httpx.Client, path: str, command: str) -> str:
    answer = client.post(f"{path}/execute_async", json={"command": command})
    assert answer.status_code == 200, answer.text
    return f"{path}/executions/{answer.json()['execution_id']}"


def parse(text: str) -> list[dict[str, Any]]:
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    return [json.loads(event.removeprefix("data: ")) for event in events]


def follow(client: httpx.Client, execution: str, name: str = "stdout", **query: str) -> list[dict[str, Any]]:
    answer = client.get(f"{execution}/stream_{name}_updates", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return parse(answer.text)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("http2", [False, True])
def test_all_of_it_arrives_and_any_piece_can_be_the_last_one_seen(server: ApiServer, api_key: str, http2: bool) -> None:
    headers = {"authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=40, http1=not http2, http2=http2) as client:
        view = client.post("/v1/devboxes/create_and_await_running").json()
        execution = start(client, f"/v1/devboxes/{view['id']}", f"printf '%s' '{TEXT}'; printf err >&2")
        events = follow(client, execution)
        assert "".join(event["output"] for event in events) == TEXT
        assert "\ufffd" not in json.dumps(events, ensure_ascii=False)
        assert follow(client, execution, "stderr") == [{"output": "err", "offset": 3}]
        for seen in (1, 7, len(events) // 2, len(events)):
            rest = follow(client, execution, offset=str(events[seen - 1]["offset"]))
            assert "".join(event["output"] for event in events[:seen] + rest) == TEXT
        client.post(f"/v1/devboxes/{view['id']}/shutdown")


def test_events_come_while_the_command_runs(client: httpx.Client, path: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    execution = start(client, path, f"echo first; until test -e {seen}; do sleep 0.05; done; echo last")
    with client.stream("GET", f"{execution}/stream_stdout_updates") as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("data:")) == 'data: {"output":"first\\n","offset":6}'
        seen.touch()
        assert [line for line in lines if line.startswith("data:")] == ['data: {"output":"last\\n","offset":11}']


def test_a_silent_stream_says_that_it_lives(client: httpx.Client, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "PING_S", 0.1)
    monkeypatch.setattr(event_streams, "_STOP_LOOK_S", 0.05)
    execution = start(client, path, "sleep 0.6")
    assert client.get(f"{execution}/stream_stdout_updates").text.count(": still here\n\n") >= 3


@pytest.mark.parametrize("http2", [False, True])
def test_who_goes_away_leaves_nothing_open(server: ApiServer, api_key: str, http2: bool) -> None:
    headers = {"authorization": f"Bearer {api_key}"}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=40) as client:
        view = client.post("/v1/devboxes/create_and_await_running").json()
        execution = start(client, f"/v1/devboxes/{view['id']}", "echo one; sleep 60")
        with (
            httpx.Client(base_url=server.base_url, headers=headers, http1=not http2, http2=http2) as reader,
            reader.stream("GET", f"{execution}/stream_stdout_updates") as answer,
        ):
            next(answer.iter_raw())
            assert server.gateway.follows == 1
        until(lambda: server.gateway.follows == 0)
        assert not server.services.waits._open
        client.post(f"{execution}/kill", json={"kill_process_group": True})
        client.post(f"/v1/devboxes/{view['id']}/shutdown")


def test_a_host_that_goes_away_meanwhile_has_the_client_come_again(
    client: httpx.Client, path: str, server: ApiServer
) -> None:
    execution = start(client, path, "echo one; sleep 0.5; echo two")
    with client.stream("GET", f"{execution}/stream_stdout_updates") as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data:"))
        server.gateway.fail = True
        try:
            rest = [line for line in lines if line and not line.startswith(":")]
        finally:
            server.gateway.fail = False
    assert rest[0] == "event: error"
    assert json.loads(rest[1].removeprefix("data: "))["code"] == 408
    assert "".join(event["output"] for event in follow(client, execution, offset="4")) == "two\n"


@pytest.mark.parametrize("offset", ["-1", "x", "1.5", str(2**53), ""])
def test_offsets_that_are_none(client: httpx.Client, path: str, offset: str) -> None:
    execution = start(client, path, "true")
    answer = client.get(f"{execution}/stream_stdout_updates", params={"offset": offset})
    assert (answer.status_code, answer.json()["field"]) == (400, "offset")


def test_what_is_not_there_is_not_a_stream(client: httpx.Client, path: str, server: ApiServer) -> None:
    execution = start(client, path, "true")
    for stream in ("stream_stdout_updates", "stream_stderr_updates"):
        assert client.get(f"{path}/executions/exec_{'0' * 21}/{stream}").status_code == 404
        assert client.get(f"{path}/executions/nothing/{stream}").json()["code"] == "execution_not_found"
        other = server.new_account(f"another {stream}").api_key
        foreign = client.get(f"{execution}/{stream}", headers={"authorization": f"Bearer {other}"})
        assert foreign.status_code == 404
        server.gateway.fail = True
        assert client.get(f"{execution}/{stream}").status_code == 503
        server.gateway.fail = False


@given(st.binary(max_size=60), st.integers(1, 9), st.integers(0, 1000))
def test_any_bytes_become_the_text_that_they_are(data: bytes, size: int, offset: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    async def scenario() -> list[tuple[str, int]]:
        return [(piece.text, piece.end) async for piece in decode_pieces(pieces(), offset)]

    found = asyncio.run(scenario())
    assert "".join(text for text, _ in found) == data.decode(errors="replace")
    # From the end of any piece on, the rest is what is still to come.
    for position, (_, end) in enumerate(found):
        rest = "".join(text for text, _ in found[position + 1 :])
        assert data[end - offset :].decode(errors="replace") == rest
