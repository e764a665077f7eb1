"""The official JavaScript client with storage objects, secrets and configurations."""

from support.api_server import ApiServer
from support.js_client import needs_js, run_js

pytestmark = [*needs_js]


def test_resources_over_http2(server: ApiServer, api_key: str) -> None:
    assert "# pass 4" in run_js("resources.test.mjs", server.base_url, api_key)
