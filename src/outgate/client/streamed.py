"""Streamed answers, as api and agent give them: whatever becomes of the client, what feeds them is let go at once."""

from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class StreamedResponse(StreamingResponse):
    """``pieces`` as the body, taken one at a time as the client takes them, and closed before this returns.

    Without the closing, a generator that is not at its end when the client goes would hold its files and
    connections until the garbage collector finds it.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()
