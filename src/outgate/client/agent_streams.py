"""api → agents: what is streamed. Output as it comes, and files in both directions, a piece at a time."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote

import httpx

from outgate.client.transport import checked

_SILENCE_S_MAX: Final = 90.0
"""An agent ends what stalls in a devbox after 60 s; one that says nothing for longer is gone."""


class AgentUnreachableError(OSError):
    """The agent does not answer, or not with sense."""


class AgentStreams(ABC):
    """The streams of :class:`outgate.control.gateway.AgentGateway`."""

    @abstractmethod
    async def _client_of(self, url: str) -> httpx.AsyncClient:
        """The connections to the agent at ``url``."""

    @asynccontextmanager
    async def follow_output(
        self, url: str, devbox_id: str, execution_id: str, stream: str, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """What was and is written from byte ``offset`` on, until the end. Raises OSError, PeerRefusedError."""
        path = f"{devbox_path(devbox_id)}/executions/{quote(execution_id, safe='')}/{stream}?offset={offset}"
        # A program may be silent for hours; that the agent is gone shows in the connection.
        async with self._streamed(url, path, timeout_s=None) as pieces:
            yield pieces

    @asynccontextmanager
    async def read_file(self, url: str, devbox_id: str, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """A file's bytes. Raises OSError, PeerRefusedError; OSError too when they break off."""
        async with self._streamed(url, _file_path(devbox_id, path), timeout_s=_SILENCE_S_MAX) as pieces:
            yield pieces

    async def write_file(self, url: str, devbox_id: str, path: str, data: AsyncIterator[bytes]) -> None:
        """Make a file of ``data``. Raises OSError, PeerRefusedError, and what ``data`` raises."""
        client = await self._client_of(url)
        try:
            response = await client.put(_file_path(devbox_id, path), content=data, timeout=_SILENCE_S_MAX)
        except httpx.HTTPError as error:
            raise _unreachable(url, error) from error
        checked(response)

    @asynccontextmanager
    async def _streamed(self, url: str, path: str, *, timeout_s: float | None) -> AsyncIterator[AsyncIterator[bytes]]:
        client = await self._client_of(url)
        timeout = httpx.Timeout(_SILENCE_S_MAX, read=timeout_s)
        try:
            response = await client.send(client.build_request("GET", path, timeout=timeout), stream=True)
        except httpx.HTTPError as error:
            raise _unreachable(url, error) from error
        try:
            if not response.is_success:
                await response.aread()
                checked(response)
            yield _pieces(url, response)
        finally:
            await response.aclose()


async def _pieces(url: str, response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        # Without a size: with one, httpx would hold back what comes until there is so much of it.
        async for piece in response.aiter_raw():
            yield piece
    except httpx.HTTPError as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: httpx.HTTPError) -> AgentUnreachableError:
    return AgentUnreachableError(f"the agent at {url} does not answer: {type(error).__name__} {error}")


def devbox_path(devbox_id: str) -> str:
    """Where the agent has a devbox; ids come from callers and are not trusted to be plain."""
    return f"/v1/devboxes/{quote(devbox_id, safe='')}"


def _file_path(devbox_id: str, path: str) -> str:
    return f"{devbox_path(devbox_id)}/file?path={quote(path.encode('utf-8', 'surrogateescape'), safe='')}"
