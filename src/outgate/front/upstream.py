"""One HTTP/1.1 exchange with a server in a devbox, over a connected socket: h11 and streams."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final, Self

import h11

from outgate.front.heads import Headers

READ_BYTES: Final = 64 * 1024
_HEAD_BYTES_MAX: Final = 64 * 1024
"""What a devbox may send before its response's head is complete; browsers stop at 256 KiB, nginx at 8."""

ResponseHead = h11.Response | h11.InformationalResponse


class Upstream:
    """A connection that carries one request and its response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES_MAX)

    @classmethod
    async def attach(cls, connected: socket.socket) -> Self:
        """Take a connected socket over. Raises OSError."""
        return cls(*await asyncio.open_connection(sock=connected, limit=READ_BYTES))

    def close(self) -> None:
        """Let go of it, whatever is still on its way."""
        self.writer.transport.abort()

    async def send_head(self, method: str, target: str, headers: Headers) -> None:
        """Raises h11.LocalProtocolError for what cannot be said in HTTP, and OSError."""
        request = h11.Request(method=method, target=target.encode("latin-1", "replace"), headers=headers)
        await self._send(request)

    async def send_body(self, chunks: AsyncIterable[bytes]) -> None:
        """Send all of the body. Raises OSError, and h11.LocalProtocolError when its length is not as announced."""
        async for chunk in chunks:
            await self._send(h11.Data(data=chunk))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self.writer.write(data)
            await self.writer.drain()

    async def read_head(self) -> ResponseHead:
        """The response's head; one with status 101 if the server agreed to an upgrade.

        Raises h11.RemoteProtocolError, and OSError.
        """
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:  # RFC 9110 §15.2.2
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("it closed the connection without a response")

    async def read_body(self) -> AsyncIterator[bytes]:
        """The response's body in pieces, as they come. Raises as :meth:`read_head`."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                return

    def take_rest(self) -> bytes:
        """What came behind a head with status 101."""
        return self._http.trailing_data[0]

    async def _next(self) -> h11.Event | None:
        """The next event; None when there will be no more."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.reader.read(READ_BYTES))
        return event if isinstance(event, h11.Event) else None


@contextlib.asynccontextmanager
async def sending(upstream: Upstream, chunks: AsyncIterable[bytes]) -> AsyncIterator[None]:
    """Send a body beside whatever the block does; a server may answer before it has read all of it."""

    async def send() -> None:
        try:
            await upstream.send_body(chunks)
        except OSError:
            pass  # the server left: what it said before that is still to be read
        except BaseException:
            # The client's body ended in the middle: the server must not take what came for all of it.
            upstream.close()
            raise

    task = asyncio.ensure_future(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain; the closed connection has told
