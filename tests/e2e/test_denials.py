"""docs/denials.md, to the letter: what each program prints when it is denied, and what the host says of it."""

import io
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pip
import pytest

from support.internet import WEB
from support.stage import LISTEN, Stage, run

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

PAGE = (Path(__file__).parents[2] / "docs/denials.md").read_text("utf-8")
ALLOWED, ALLOWED_AT = "example.com", "45.45.45.50"
DENIED, DENIED_AT = "example.net", "45.45.45.51"
UNNAMED = "198.51.100.7"

_DIFFERS = (
    (re.compile(r"\bnpol_\w+"), "npol_x"),
    (re.compile(r"after \d+ ms"), "after N ms"),
    (re.compile(r"at 0x[0-9a-f]+"), "at 0x0"),
    (re.compile(r"\bpip\._vendor\."), ""),
    (re.compile(r"policy: .*|policy '[^']*'"), "policy"),
)
_REQUESTS = "from pip._vendor.requests import *\n"
_PIP = '#!/bin/sh\nexec python3 -m pip "$@"\n'
_ENVIRONMENT = (
    "export PATH=/tmp/bin:$PATH PYTHONPATH=/tmp/pip.zip:/tmp/site PIP_BREAK_SYSTEM_PACKAGES=1"
    " PIP_USER=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 LC_ALL=C.UTF-8; cd /tmp; "
)


@dataclass(frozen=True, slots=True)
class Step:
    command: str
    said: list[str] = field(default_factory=list)


def read_steps(text: str) -> list[Step]:
    """The commands in the ``console`` blocks, in order, and what they print."""
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line.removeprefix("$ ")))
            else:
                steps[-1].said.append(line)
    return steps


STEPS = read_steps(PAGE)


def _masked(text: str) -> list[str]:
    for pattern, instead in _DIFFERS:
        text = pattern.sub(instead, text)
    # Warnings of pip repeat what its own page says of retries; which ones come depends on its version.
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith("WARNING: ")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _pip_as_zip() -> bytes:
    root, content = Path(pip.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in root.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(root.parent))
    return content.getvalue()


@pytest.fixture
def internet_of_the_page(stage: Stage) -> Stage:
    stage.internet.add_host(ALLOWED, addresses=(ALLOWED_AT,), services=WEB)
    stage.internet.add_host(DENIED, addresses=(DENIED_AT,), services=WEB)
    return stage


def test_every_program_prints_what_the_page_says(internet_of_the_page: Stage) -> None:
    """That it was at once is in what they print: one that waited would speak of a time-out."""
    stage = internet_of_the_page
    devbox = stage.devbox(stage.policy(allowed_hostnames=[ALLOWED]))
    devbox.file.upload(path="/tmp/pip.zip", file=_pip_as_zip())
    prepare = f"mkdir -p /tmp/bin /tmp/site && printf '%s' '{_REQUESTS}' >/tmp/site/requests.py"
    assert run(devbox, f"{prepare} && printf '%s' '{_PIP}' >/tmp/bin/pip && chmod +x /tmp/bin/pip").exit_code == 0
    since_s = stage.internet.now_s()
    assert len(STEPS) >= 15
    for step in STEPS:
        ran = run(devbox, _ENVIRONMENT + "{ " + step.command + "; } 2>&1")
        assert _masked(ran.stdout) == _masked("\n".join(step.said)), step.command
    journal = stage.internet.journal(since_s=since_s)
    assert not journal.reached(DENIED_AT)
    assert not journal.reached(UNNAMED)
    assert {query.name for query in journal.queries} <= {ALLOWED}
    _see_why(stage, devbox.id)


def _see_why(stage: Stage, devbox_id: str) -> None:
    """What a person at the host reads of it."""
    words = ["devbox", "why", devbox_id, "--state-dir", str(stage.daemon.state_dir), "--url", f"http://{LISTEN}"]
    command = [sys.executable, "-m", "outgate.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    told = {(row[2], row[3]): row[4] for row in rows}
    assert "add it to allowed_hostnames" in told["dns", DENIED]
    assert "add it to allowed_hostnames" in told["dns", "pypi.org"]
    assert "add it to allowed_hostnames" in told["relay", f"{DENIED}:443 tls"]
    assert f"add {UNNAMED}/32" in told["kernel", f"{UNNAMED}:123 udp"]
    assert f"add {UNNAMED}/32" in told["kernel", f"{UNNAMED}:22,80,443,5432 tcp"]
    assert "no policy opens it" in told["kernel", "169.254.169.254:80 tcp"]
    assert "--dry-run" in done.stderr
