"""``outgate flows --follow`` on a terminal, through pipes, and through the server's restarts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from support.flow_feed import Feed, flow, watching

ALLOWED = {"verdict": "allow", "hostname": "y.org", "port": 443, "protocol": "tls", "rule": "hostname y.org"}
GREEN, RED = b"\x1b[32m", b"\x1b[1;31m"


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed(flow(1, count=3))
    yield made
    made.close()


def test_repeats_are_one_line_the_newest_on_top_and_ctrl_c_ends_it_cleanly(feed: Feed) -> None:
    with watching(feed, columns=240) as screen:
        screen.await_text(r"3 decisions .* 3 denied")
        assert feed.asked.get(timeout=60) == 1
        feed.send(flow(2, **ALLOWED), flow(3), flow(4))
        frame = screen.await_text(r"6 decisions · 1 allowed · 5 denied · [\d.]+/s")
        rows = [line.split() for line in frame.splitlines()[3:] if line.strip()]
        assert [("deny" in row, "x.org" in row, "y.org:443" in row) for row in rows] == [
            (True, True, False),
            (False, False, True),
        ]
        assert "x5" in rows[0]
        assert "add it to allowed_hostnames" in frame
        assert GREEN in screen.raw
        assert RED in screen.raw
        assert screen.press_interrupt() == 130
        assert screen.raw.count(b"\x1b[?25h") == screen.raw.count(b"\x1b[?25l") == 1  # the cursor is back
        assert "Traceback" not in screen.text


def test_a_narrow_terminal_leaves_columns_out_and_keeps_what_matters(feed: Feed) -> None:
    with watching(feed, columns=50) as screen:
        frame = screen.await_text(r"3 decisions")
        assert "x.org" in frame
        assert "deny" in frame
        assert max(map(len, frame.splitlines())) <= 50
        assert "DEVBOX" not in frame


def test_a_low_terminal_is_not_overrun(feed: Feed) -> None:
    with watching(feed, rows=10) as screen:
        screen.await_text(r"3 decisions")
        feed.send(*(flow(number, hostname=f"h{number}.org") for number in range(2, 52)))
        frame = screen.await_text(r"53 decisions")
        assert len([line for line in frame.splitlines() if line.strip()]) <= 10
        assert "h51.org" in frame
        assert "h2.org" not in frame


def test_on_a_terminal_a_restart_is_said_and_nothing_is_lost_or_doubled(feed: Feed) -> None:
    with watching(feed) as screen:
        assert feed.asked.get(timeout=60) == 1
        feed.send(flow(7))
        screen.await_text(r"4 decisions")
        feed.away()
        screen.await_text(r"trying again")
        feed.back()
        assert feed.asked.get(timeout=60) == 7
        feed.send(flow(8, hostname="back.org"))
        frame = screen.await_text(r"5 decisions")
        assert "trying again" not in frame


@contextmanager
def _follow(feed: Feed, options: Sequence[str]) -> "Iterator[subprocess.Popen[str]]":
    listens = ["env", "--default-signal=INT"]
    words = [*listens, sys.executable, "-m", "outgate.cli.main", "flows", "--follow", "--url", feed.url]
    with subprocess.Popen(
        [*words, "--api-key", "key-of-the-test", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as follower:
        try:
            yield follower
        finally:
            follower.kill()  # it follows without end; a test that fails must not wait for it


def test_pipes_get_lines_with_one_head_and_notes_beside_them(feed: Feed) -> None:
    with _follow(feed, ()) as follower:
        assert follower.stdout is not None
        assert follower.stderr is not None
        assert follower.stdout.readline().split("\t")[:3] == ["time", "devbox", "verdict"]
        assert "deny x3" in follower.stdout.readline()
        assert feed.asked.get(timeout=60) == 1
        feed.send(flow(2, **ALLOWED))
        assert "y.org:443 tls" in follower.stdout.readline()
        feed.away()
        assert "goes on from here" in follower.stderr.readline()
        feed.back()
        assert feed.asked.get(timeout=60) == 2
        assert "it is back" in follower.stderr.readline()
        feed.send(flow(3, hostname="z.org"))
        assert "z.org" in follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 130
        assert follower.stderr.read() == ""


def test_json_stays_one_object_a_line_through_ends_of_the_stream(feed: Feed) -> None:
    with _follow(feed, ("--json",)) as follower:
        assert follower.stdout is not None
        for number in range(1, 5):
            assert json.loads(follower.stdout.readline())["number"] == number
            assert feed.asked.get(timeout=60) == number
            feed.send(flow(number + 1))
            feed.end_stream()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 130
