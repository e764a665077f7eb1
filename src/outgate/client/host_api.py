"""agent → api: the host's side of the internal interface."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx
import msgspec

from outgate.client.transport import PeerRefusedError, PeerUnreachableError, checked, open_async_client
from outgate.model.desired import BuildLogPart, DesiredState, FlowBatch, HostReport
from outgate.model.measures import HostMeasures

_ANSWER_WAIT_S: Final = 10.0
"""On top of what the api was asked to wait."""
_PIECE_BYTES: Final = 256 * 1024


class ObjectStream:
    """The bytes of one storage object on their way; iterate once, inside of the block that opened it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.size_bytes = int(response.headers["content-length"])
        """How many there will be: all of them come, or the iteration raises."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of at most 256 KiB. Raises :class:`PeerUnreachableError` when the api breaks off."""
        try:
            async for piece in self._response.aiter_raw(_PIECE_BYTES):
                yield piece
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"the api broke off: {type(error).__name__} {error}") from error


class HostApiClient:
    """Fetches the desired state and reports what is in force. Keeps its connections open."""

    def __init__(self, place: str, token: str) -> None:
        self._client = open_async_client(place, token, timeout_s=_ANSWER_WAIT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch_desired_state(self, after: int, wait_s: float) -> DesiredState:
        """What changed after revision ``after``, waiting up to ``wait_s`` for a change; all of it for ``after`` 0.

        Raises :class:`PeerUnreachableError`, or :class:`PeerRefusedError` for an answer that is not one.
        """
        response = await self._send(
            self._client.build_request(
                "GET",
                "/internal/v1/desired-state",
                params={"after": after, "wait_s": f"{wait_s:g}"},
                timeout=_ANSWER_WAIT_S + wait_s,
            )
        )
        try:
            return msgspec.json.decode(checked(response), type=DesiredState)
        except msgspec.DecodeError as error:
            raise PeerRefusedError(f"the desired state cannot be read: {error}", status=response.status_code) from error

    async def report(self, report: HostReport) -> None:
        """Tell the api what is in force. Raises as :meth:`fetch_desired_state`."""
        await self._post("/internal/v1/report", report)

    async def store_build_log(self, blueprint_id: str, part: BuildLogPart) -> None:
        """Hand in lines of a build's log; again with the same number does nothing. Raises as the others do."""
        await self._post(f"/internal/v1/builds/{quote(blueprint_id, safe='')}/log", part)

    async def store_flows(self, batch: FlowBatch) -> None:
        """Hand in decisions; again with the same number does nothing. Raises as the others do."""
        await self._post("/internal/v1/flows", batch)

    async def store_measures(self, measures: HostMeasures) -> None:
        """Hand in what was counted. Raises as the others do."""
        await self._post("/internal/v1/measures", measures)

    async def _post(self, path: str, document: msgspec.Struct) -> None:
        request = self._client.build_request(
            "POST", path, content=msgspec.json.encode(document), headers={"content-type": "application/json"}
        )
        checked(await self._send(request))

    @asynccontextmanager
    async def open_object(self, object_id: str) -> AsyncIterator[ObjectStream]:
        """The bytes of a READ_ONLY storage object, as a stream. Raises as the others do."""
        path = f"/internal/v1/objects/{quote(object_id, safe='')}"
        response = await self._send(self._client.build_request("GET", path), is_streamed=True)
        try:
            if not response.is_success:
                await response.aread()
                checked(response)
            yield ObjectStream(response)
        finally:
            await response.aclose()

    async def _send(self, request: httpx.Request, *, is_streamed: bool = False) -> httpx.Response:
        try:
            return await self._client.send(request, stream=is_streamed)
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"the api does not answer: {type(error).__name__} {error}") from error
