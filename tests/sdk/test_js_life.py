"""The official JavaScript client through a devbox's whole life."""

from support.api_server import ApiServer
from support.js_client import needs_js, run_js

pytestmark = [*needs_js]


def test_a_devboxs_life_over_http2(server: ApiServer, api_key: str) -> None:
    assert "# pass 2" in run_js("life.test.mjs", server.base_url, api_key)
