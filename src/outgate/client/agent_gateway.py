"""api → agents: executions, over each agent's own interface. Implements ``control.gateway.AgentGateway``."""

from collections import OrderedDict
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import httpx
import msgspec

from outgate.client.agent_streams import AgentStreams, AgentUnreachableError, devbox_path
from outgate.client.transport import checked, open_async_client
from outgate.model.desired import DevboxActivity, ExecutionRequest, ExecutionState
from outgate.model.executions import KillRequest, LogPage, StdinOutcome, StdinRequest
from outgate.model.snapshots import SnapshotRemoval, SnapshotRequest, SnapshotState

_ANSWER_WAIT_S: Final = 30.0
_CLIENTS_MAX: Final = 256
"""Agents to which connections stay open; an installation has some dozens of hosts."""
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409

_Answer = TypeVar("_Answer")


class AgentHttpGateway(AgentStreams):
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
        """Start the command, or find it started. None: no such devbox there. Raises OSError, PeerRefusedError."""
        body = msgspec.json.encode(request)
        return await self._call(url, "POST", _executions(devbox_id), ExecutionState, body=body)

    async def read_execution(
        self, url: str, devbox_id: str, execution_id: str, *, wait_s: float, last_n: int
    ) -> ExecutionState | None:
        """The execution once it is completed, or as it is after ``wait_s``. None: no such one. Raises OSError."""
        path = f"{_executions(devbox_id, execution_id)}?wait_s={wait_s:g}&last_n={last_n}"
        return await self._call(url, "GET", path, ExecutionState, wait_s=wait_s)

    async def start_snapshot(self, url: str, snapshot_id: str, devbox_id: str) -> SnapshotState | None:
        """Begin the snapshot, or find it begun. Raises OSError."""
        body = msgspec.json.encode(SnapshotRequest(devbox_id))
        return await self._call(url, "POST", _snapshot(snapshot_id), SnapshotState, body=body)

    async def read_snapshot(self, url: str, snapshot_id: str, *, wait_s: float) -> SnapshotState | None:
        """The snapshot once it is over, or as it is after ``wait_s``. None: no such one. Raises OSError."""
        path = f"{_snapshot(snapshot_id)}?wait_s={wait_s:g}"
        return await self._call(url, "GET", path, SnapshotState, wait_s=wait_s)

    async def remove_snapshot(self, url: str, snapshot_id: str) -> SnapshotRemoval | None:
        """Clear away what the host has of the snapshot. Raises OSError."""
        return await self._call(url, "DELETE", _snapshot(snapshot_id), SnapshotRemoval)

    async def kill_execution(
        self, url: str, devbox_id: str, execution_id: str, *, is_group: bool
    ) -> ExecutionState | None:
        """Kill the command; its state then. None: no such execution there. Raises OSError."""
        body = msgspec.json.encode(KillRequest(is_group))
        return await self._call(url, "POST", _executions(devbox_id, execution_id) + "/kill", ExecutionState, body=body)

    async def send_stdin(
        self, url: str, devbox_id: str, execution_id: str, request: StdinRequest
    ) -> StdinOutcome | None:
        """Type into the command. None: no such execution there. Raises OSError, PeerRefusedError."""
        body = msgspec.json.encode(request)
        return await self._call(url, "POST", _executions(devbox_id, execution_id) + "/stdin", StdinOutcome, body=body)

    async def read_logs(
        self, url: str, devbox_id: str, execution_id: str | None, shell_name: str | None
    ) -> LogPage | None:
        """The devbox's log. None: no such execution there. Raises OSError."""
        wanted = {"execution_id": execution_id, "shell_name": shell_name}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        return await self._call(url, "GET", f"{devbox_path(devbox_id)}/logs?{query}", LogPage)

    async def read_activity(self, url: str, devbox_id: str) -> DevboxActivity | None:
        """What runs in the devbox. None: the agent does not know it. Raises OSError."""
        return await self._call(url, "GET", f"{devbox_path(devbox_id)}/activity", DevboxActivity)

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
        if response.status_code == _CONFLICT:
            checked(response)
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


def _snapshot(snapshot_id: str) -> str:
    return f"/v1/snapshots/{quote(snapshot_id, safe='')}"


def _executions(devbox_id: str, execution_id: str | None = None) -> str:
    """The path of a devbox's executions, or of one."""
    place = f"{devbox_path(devbox_id)}/executions"
    return place if execution_id is None else f"{place}/{quote(execution_id, safe='')}"
