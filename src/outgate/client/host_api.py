"""agent → api: the host's side of the internal interface."""

from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from outgate.client.transport import PeerRefusedError, PeerUnreachableError, checked, open_async_client
from outgate.model.desired import DesiredState, HostReport

_ANSWER_WAIT_S: Final = 10.0
"""On top of what the api was asked to wait."""


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
        request = self._client.build_request(
            "POST",
            "/internal/v1/report",
            content=msgspec.json.encode(report),
            headers={"content-type": "application/json"},
        )
        checked(await self._send(request))

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request)
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"the api does not answer: {type(error).__name__} {error}") from error
