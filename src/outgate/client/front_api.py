"""front → api: what there is to serve, and what happens to it."""

from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from outgate.client.transport import PeerRefusedError, PeerUnreachableError, checked, open_async_client
from outgate.model.tunnels import ActivityNote, TunnelFeed, WakeAnswer

_ANSWER_WAIT_S: Final = 10.0
_JSON: Final = {"content-type": "application/json"}
_Answer = TypeVar("_Answer")


class FrontApiClient:
    """Speaks to the api's socket for the front. The socket's permissions are all the proof the api wants.

    All methods raise :class:`PeerUnreachableError`, and :class:`PeerRefusedError` for an answer that is not one.
    """

    def __init__(self, place: str) -> None:
        self._client = open_async_client(place, None, timeout_s=_ANSWER_WAIT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch_tunnels(self, after: int, wait_s: float) -> TunnelFeed:
        """What changed after ``after``, waiting up to ``wait_s`` for a change; everything for 0."""
        params = {"after": str(after), "wait_s": f"{wait_s:g}"}
        return await self._call("GET", "/front/v1/tunnels", TunnelFeed, params=params, wait_s=wait_s)

    async def wake(self, key: str) -> WakeAnswer:
        """Why the devbox behind this tunnel does not answer; it is woken if requests may do that."""
        return await self._call("POST", f"/front/v1/tunnels/{quote(key, safe='')}/wake", WakeAnswer)

    async def note_activity(self, note: ActivityNote) -> None:
        """These tunnels were used."""
        await self._call("POST", "/front/v1/activity", dict, content=msgspec.json.encode(note))

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[_Answer],
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        wait_s: float = 0,
    ) -> _Answer:
        timeout = _ANSWER_WAIT_S + wait_s
        try:
            response = await self._client.request(
                method, path, params=params, content=content, headers=_JSON, timeout=timeout
            )
        except httpx.HTTPError as error:
            raise PeerUnreachableError(f"the api does not answer: {type(error).__name__} {error}") from error
        try:
            return msgspec.json.decode(checked(response), type=kind)
        except msgspec.DecodeError as error:
            message = f"the answer cannot be read: {error}"
            raise PeerRefusedError(message, status=response.status_code) from error
