"""Logs: no secrets, bounded lines, one JSON object each."""

import json
from collections.abc import Iterator

import pytest
import structlog

from outgate.logs import configure_logs
from outgate.settings import LogFormat, LogLevel


@pytest.fixture(autouse=True)
def structlog_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_line_is_json_with_process_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogLevel.INFO, LogFormat.JSON, process="agent")
    structlog.get_logger("x").info("flow", name="allowed.example")
    structlog.get_logger("x").debug("not shown")
    captured = capsys.readouterr()
    assert captured.out == ""
    line = json.loads(captured.err)
    assert (line["event"], line["process"], line["level"], line["name"]) == ("flow", "agent", "info", "allowed.example")
    assert line["timestamp"].endswith("Z")


def test_secrets_are_hidden_whoever_logs_them(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogLevel.INFO, LogFormat.JSON, process="api")
    structlog.get_logger("x").info("e", api_key="k1", token="k2", environment={"A": "k3"}, database_url="k4")
    assert not any(secret in capsys.readouterr().err for secret in ("k1", "k2", "k3", "k4"))


@pytest.mark.parametrize("form", list(LogFormat))
def test_what_a_devbox_chose_can_neither_flood_nor_fake_a_line(
    capsys: pytest.CaptureFixture[str], form: LogFormat
) -> None:
    configure_logs(LogLevel.INFO, form, process="agent")
    structlog.get_logger("x").info("flow", name="a\nlevel=error\x1b[2J" + "x" * 100_000)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b[2J" not in error
    assert len(error) < 4000
