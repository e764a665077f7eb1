"""Logs: no secrets, bounded lines, one JSON object each."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from outgate.logs import LINES_A_MINUTE_MAX, LineLimit, configure_logs
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


def test_lines_of_one_kind_are_limited_and_counted_and_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogLevel.INFO, LogFormat.JSON, process="agent")
    log = structlog.get_logger("x")
    for number in range(LINES_A_MINUTE_MAX + 50):
        log.info("provoked", number=number)
    log.info("something else")
    for _ in range(LINES_A_MINUTE_MAX + 50):
        logging.getLogger("library").warning("provoked too")
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if '"provoked"' in line]) == LINES_A_MINUTE_MAX
    assert len([line for line in lines if "something else" in line]) == 1
    assert len([line for line in lines if line.startswith("library: ")]) == LINES_A_MINUTE_MAX


def test_after_a_minute_lines_come_again_and_say_how_many_were_left_out() -> None:
    now_s = 10.0
    limit = LineLimit(lambda: now_s)
    assert [limit.admit("a") for _ in range(LINES_A_MINUTE_MAX + 7)] == [0] * LINES_A_MINUTE_MAX + [None] * 7
    now_s += 59.9
    assert limit.admit("a") is None
    now_s += 0.2
    assert [limit.admit("a"), limit.admit("a")] == [8, 0]
    assert limit.admit("b") == 0


def test_debugging_shows_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogLevel.DEBUG, LogFormat.JSON, process="agent")
    for _ in range(LINES_A_MINUTE_MAX * 2):
        structlog.get_logger("x").debug("flow")
    assert len(capsys.readouterr().err.splitlines()) == LINES_A_MINUTE_MAX * 2
