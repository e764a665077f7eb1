"""Runs scripts of the official JavaScript client by node's own test runner. ``npm ci`` in ``sdk/js`` installs it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_JS = Path(__file__).parents[1] / "sdk" / "js"

needs_js = (
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(not (_JS / "node_modules").is_dir(), reason="run npm ci in tests/sdk/js first"),
)


def run_js(script: str, base_url: str, api_key: str) -> str:
    """What the runner says, in TAP; fails when a test of ``script`` does."""
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", script],
        cwd=_JS,
        env={**os.environ, "OUTGATE_URL": base_url, "OUTGATE_API_KEY": api_key},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
