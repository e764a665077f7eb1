"""The tutorial, followed to the letter: what it says is printed, and what it says leaves is all that leaves."""

import io
import re
import shlex
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from outgate.cli import main
from support.internet import WEB
from support.stage import LISTEN, Stage
from support.world import Host

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial.md"
HOSTS = (
    Host("example.com", "45.45.45.40", "2a0f:4444::40"),
    Host("example.org", "45.45.45.41", "2a0f:4444::41"),
    Host("example.net", "45.45.45.42", "2a0f:4444::42"),
)
FAR_SIDE = {
    "Three policies": set(),
    "A build that wants too much": {"example.com"},
    "A build that keeps to its policy": {"example.com"},
    "A devbox under another policy": {"example.org"},
    "Asleep and awake": {"example.org"},
    "Its disk under a third policy": {"example.net"},
    "Clean up": set(),
}
"""The names that anything at all on the internet may hear of, section by section."""

_ID = re.compile(r"\b(?:npol|bpt|dbx|snp)_\w+")
_DIFFERS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+\.\d MiB")
_FAILED = ("error: ", "curl: (")
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the tutorial and what it is said to print."""

    section: str
    command: str
    said: list[str] = field(default_factory=list)


def read_steps(text: str) -> list[Step]:
    """The commands in the ``console`` blocks, in order."""
    steps: list[Step] = []
    section, is_console = "", False
    for line in text.splitlines():
        if line.startswith("```"):
            is_console = line == "```console"
        elif line.startswith("## ") and not is_console:
            section = line.removeprefix("## ")
        elif is_console and line.startswith("$ outgate "):
            steps.append(Step(section, line.removeprefix("$ ")))
        elif is_console:
            steps[-1].said.append(line)
    return steps


@dataclass(slots=True)
class Reader:
    """Somebody who follows the tutorial. ``ids`` are theirs, by those that the tutorial has in their places."""

    ids: dict[str, str] = field(default_factory=dict)

    def follow(self, step: Step) -> None:
        """Type the command; it prints what the tutorial says and fails only where that shows an error."""
        command = _ID.sub(lambda found: self.ids[found[0]], step.command)
        deadline_s = time.monotonic() + _PATIENCE_S
        code, lines = _type(command)
        # The log of decisions is some 50 ms behind them; a person is slower than that.
        while step.command.startswith("outgate flows ") and len(lines) < len(step.said):
            assert time.monotonic() < deadline_s, lines
            time.sleep(0.05)
            code, lines = _type(command)
        assert [_masked(line) for line in lines] == [_masked(line) for line in step.said], command
        for theirs, ours in zip(_ID.findall("\n".join(step.said)), _ID.findall("\n".join(lines)), strict=True):
            assert self.ids.setdefault(theirs, ours) == ours, f"{ours} stands where {theirs} does, in {command}"
        assert (code != 0) == any(line.startswith(_FAILED) for line in step.said), (command, code)


def _type(command: str) -> tuple[int, list[str]]:
    """The command's exit code and what a terminal would show of it, line by line."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown), redirect_stderr(shown):
        patch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            main.main()
    return int(end.value.code or 0), shown.getvalue().splitlines()


def _masked(line: str) -> list[str]:
    """The words of a line, without what is another's at every run."""
    return _DIFFERS.sub("~", _ID.sub(lambda found: found[0].partition("_")[0], line)).split()


def _heard_of(stage: Stage, since_s: float) -> set[str]:
    """The names that were asked for, connected to or written in a request since then, as the far side saw it."""
    journal = stage.internet.journal(since_s=since_s)
    connected = {host.name for host in HOSTS if journal.reached(host.address4) or journal.reached(host.address6)}
    requested = {urlsplit(line.split(" ")[1]).hostname or "" for c in journal.connections for line in c.requests}
    return connected | requested | {query.name for query in journal.queries}


def test_the_tutorial_can_be_followed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in HOSTS:
        stage.internet.add_host(host.name, addresses=(host.address4, host.address6), services=WEB)
    monkeypatch.setenv("OUTGATE_STATE_DIR", str(stage.daemon.state_dir))
    monkeypatch.setenv("OUTGATE_LISTEN", LISTEN)
    reader, sections = Reader(), []
    for section, steps in groupby(read_steps(TUTORIAL.read_text("utf-8")), key=lambda step: step.section):
        since_s = stage.internet.now_s()
        for step in steps:
            reader.follow(step)
        assert _heard_of(stage, since_s) == FAR_SIDE[section], section
        sections.append(section)
    assert sections == list(FAR_SIDE)
