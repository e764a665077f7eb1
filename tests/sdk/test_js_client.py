"""The official JavaScript client, by node's own test runner. ``npm ci`` in ``js`` installs it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.api_server import ApiServer

JS = Path(__file__).parent / "js"

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(not (JS / "node_modules").is_dir(), reason="run npm ci in tests/sdk/js first"),
]


def test_the_official_client_over_http2(server: ApiServer, api_key: str) -> None:
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", "client.test.mjs"],
        cwd=JS,
        env={**os.environ, "OUTGATE_URL": server.base_url, "OUTGATE_API_KEY": api_key},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 4" in done.stdout


def test_the_lock_file_records_no_download_address() -> None:
    assert '"resolved"' not in (JS / "package-lock.json").read_text()
