"""The console as browsers see it: an HTTP client that keeps cookies and fills in forms."""

import html
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec

from outgate.clock import wall_ms
from outgate.model.desired import FlowBatch, FlowRecord
from support.api_server import HOST_TOKEN, ApiServer

SIGN_IN = "/console/sign-in"
POLICIES = "/console/policies"
_FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]+)"')
_PREVIEWED = re.compile(r'name="previewed" value="([0-9a-f]+)"')


class Visitor:
    """Somebody with a browser of their own; nothing is followed unless asked."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def get(self, path: str, **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, headers=given)

    def see(self, path: str) -> str:
        """The page's text as it was sent."""
        answer = self.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.text

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, data=dict(fields), headers=given)

    def token(self, path: str = POLICIES) -> str:
        return find_token(self.see(path))

    def send(self, path: str, **fields: str) -> httpx.Response:
        """Post a form of this session."""
        return self.post(path, {"form_token": self.token(), **fields})

    def sign_in(self, key: str, **fields: str) -> httpx.Response:
        return self.post(SIGN_IN, {"form_token": self.token(SIGN_IN), "api_key": key, **fields})


def find_token(page: str) -> str:
    found = _FORM_TOKEN.search(page)
    assert found is not None, page
    return found[1]


def find_previewed(page: str) -> str | None:
    found = _PREVIEWED.search(page)
    return None if found is None else found[1]


def plain(page: str) -> str:
    """What a page says, without tags, in single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@contextmanager
def visiting(server: ApiServer, **options: Any) -> Iterator[Visitor]:
    with httpx.Client(base_url=server.base_url, timeout=40, **options) as client:
        yield Visitor(client)


class Teller:
    """The host, telling what its devboxes did."""

    def __init__(self, server: ApiServer, boot_id: str) -> None:
        self._server, self._boot_id, self._number = server, boot_id, 0

    def tell(self, devbox_id: str, policy_id: str, *kinds: Mapping[str, Any]) -> None:
        self._number += 1
        plain_record = FlowRecord(wall_ms(), devbox_id, policy_id, 1, "allow", "hostname", "relay", protocol="tls")
        records = tuple(msgspec.structs.replace(plain_record, **kind) for kind in kinds)
        transport = httpx.HTTPTransport(uds=str(self._server.socket_path))
        headers = {"authorization": f"Bearer {HOST_TOKEN}"}
        with httpx.Client(transport=transport, base_url="http://api", headers=headers, timeout=40) as client:
            body = msgspec.json.encode(FlowBatch(self._boot_id, self._number, records))
            answer = client.post("/internal/v1/flows", content=body)
        assert answer.status_code == 200, answer.text


def make_policy(client: httpx.Client, **body: object) -> str:
    answer = client.post("/v1/network-policies", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def make_devbox(client: httpx.Client, policy_id: str, **body: object) -> str:
    given = {"launch_parameters": {"network_policy_id": policy_id}, **body}
    answer = client.post("/v1/devboxes/create_and_await_running", json=given)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])
