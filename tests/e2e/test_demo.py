"""The demo tells its story and ends well, on its own internet and against a network it did not make."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from outgate.cli.demo.leftovers import STATE, clear_stale
from outgate.dataplane.netns import NETNS_DIR
from outgate.settings import load_settings
from support.internet import WEB, Internet

DEMO_S_MAX = 150.0

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]


def _run_demo(*arguments: str, prefix: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> str:
    command = [*prefix, sys.executable, "-m", "outgate.cli.main", "demo", *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=DEMO_S_MAX,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_shows_what_it_promises_and_leaves_nothing() -> None:
    before = set(NETNS_DIR.iterdir()) if NETNS_DIR.exists() else set()
    story = _run_demo()
    assert "✘" not in story
    for promise in (
        r"✔ packages\.example\.org answered",
        r"✔ paste\.example\.net failed at once",
        r"✔ because: paste\.example\.net is not covered",
        r"✔ the verdicts turned around; the update took \d+\.\d ms",
        r"✔ the program noticed at once",
        r"✔ the far side saw it end too",
        r"✔ allow packages\.example\.org: allowed_hostnames\[0\]",
        r"✔ no namespace of it is left",
        r"the policy held",
    ):
        assert re.search(promise, story), f"{promise} is not in\n{story}"
    assert {path for path in NETNS_DIR.iterdir() if path.name.startswith(f"ogdemo-{os.getpid():x}")} <= before


def test_the_demo_works_against_a_network_it_did_not_make() -> None:
    with Internet() as internet:
        for number, name in ((10, "real.example.org"), (11, "example.com")):
            internet.add_host(name, addresses=(f"45.45.45.{number}", f"2a0f:4444::{number}"), services=WEB)
        story = _run_demo(
            "--ca-file",
            str(internet.ca_file),
            prefix=("nsenter", f"--net={internet.namespaces.host_path}"),
            environment={"DEMO_HOST": "real.example.org", "OUTGATE_UPSTREAM_DNS": internet.resolver},
        )
        assert "against real.example.org" in story
        assert "✘" not in story
        assert {c.server_name for c in internet.journal().connections} >= {"real.example.org", "example.com"}


def test_a_demo_that_is_broken_off_is_cleared_by_the_next() -> None:
    command = [sys.executable, "-m", "outgate.cli.main", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "is running after" in line:
                break
        demo.kill()
    namespaces, folders = f"ogdemo-{demo.pid:x}-*", f"outgate-stage-{demo.pid:x}-*"
    assert len(list(NETNS_DIR.glob(namespaces))) == 2, "killed as it was, it could not clear up"
    (state_dir,) = (folder / STATE for folder in Path(tempfile.gettempdir()).glob(folders))
    instance = load_settings(state_dir=state_dir).instance_id
    assert list(NETNS_DIR.glob(f"outgate-{instance}-*")), "its devbox runs on, filtered"
    clear_stale()
    assert not list(NETNS_DIR.glob(namespaces))
    assert not list(NETNS_DIR.glob(f"outgate-{instance}*"))
    assert not state_dir.exists()
