"""The official JavaScript client, by node's own test runner. ``npm ci`` in ``js`` installs it."""

from pathlib import Path

from support.api_server import ApiServer
from support.js_client import needs_js, run_js

JS = Path(__file__).parent / "js"

pytestmark = [*needs_js]


def test_the_official_client_over_http2(server: ApiServer, api_key: str) -> None:
    assert "# pass 4" in run_js("client.test.mjs", server.base_url, api_key)


def test_the_lock_file_records_no_download_address() -> None:
    assert '"resolved"' not in (JS / "package-lock.json").read_text()
