"""api → agents: executions, over each agent's own interface. Implements ``control.gateway.AgentGateway``."""

from collections import OrderedDict
from typing import Final, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from outgate.client.transport import open_async_client
from outgate.model.desired import ExecutionRequest, ExecutionState

_ANSWER_WAIT_S: Final = 30.0
_CLIENTS_MAX: Final = 256
"""Agents to which connections stay open; an installation has some dozens of hosts."""
_NOT_FOUND: Final = 404

_Answer = TypeVar("_Answer")


class AgentUnreachableError(OSError):
    """The agent does not answer, or not with sense."""


class AgentHttpGateway:
    """Reaches agents by the place each reported, with the token that this installation's hosts share."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._clients: OrderedDict[str, httpx.AsyncClient] = OrderedDict()

    async def aclose(self) -> None:
        """Close all connections."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    async def start_execution(self, url: str, devbox_id: str, request: ExecutionRequest) -> ExecutionState | None:
        """Start the command, or find it started. None: no such devbox there. Raises OSError."""
        body = msgspec.json.encode(request)
        return await self._call(url, "POST", _executions(devbox_id), ExecutionState, body=body)

    async def read_execution(
        self, url: str, devbox_id: str, execution_id: str, *, wait_s: float, last_n: int
    ) -> ExecutionState | None:
        """The execution once it is completed, or as it is after ``wait_s``. None: no such one. Raises OSError."""
        path = f"{_executions(devbox_id, execution_id)}?wait_s={wait_s:g}&last_n={last_n}"
        return await self._call(url, "GET", path, ExecutionState, wait_s=wait_s)

    async def kill_execution(self, url: str, devbox_id: str, execution_id: str) -> ExecutionState | None:
        """Kill the command; its state then. None: no such execution there. Raises OSError."""
        return await self._call(url, "POST", _executions(devbox_id, execution_id) + "/kill", ExecutionState)

    async def _call(
        self, url: str, method: str, path: str, kind: type[_Answer], *, body: bytes = b"", wait_s: float = 0
    ) -> _Answer | None:
        client = await self._client_of(url)
        try:
            response = await client.request(
                method,
                path,
                content=body or None,
                headers={"content-type": "application/json"},
                timeout=_ANSWER_WAIT_S + wait_s,
            )
        except httpx.HTTPError as error:
            raise AgentUnreachableError(f"the agent at {url} does not answer: {error}") from error
        if response.status_code == _NOT_FOUND:
            return None
        if not response.is_success:
            raise AgentUnreachableError(f"the agent at {url} answers {response.status_code}: {response.text[:200]}")
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise AgentUnreachableError(f"the agent at {url} sent what cannot be read: {error}") from error

    async def _client_of(self, url: str) -> httpx.AsyncClient:
        client = self._clients.get(url)
        if client is None:
            if len(self._clients) >= _CLIENTS_MAX:
                _, oldest = self._clients.popitem(last=False)
                await oldest.aclose()
            client = self._clients[url] = open_async_client(url, self._token, timeout_s=_ANSWER_WAIT_S)
        self._clients.move_to_end(url)
        return client


def _executions(devbox_id: str, execution_id: str | None = None) -> str:
    """The path of a devbox's executions, or of one; ids come from callers and are not trusted to be plain."""
    place = f"/v1/devboxes/{quote(devbox_id, safe='')}/executions"
    return place if execution_id is None else f"{place}/{quote(execution_id, safe='')}"
