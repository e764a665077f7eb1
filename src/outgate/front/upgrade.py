"""What follows a 101: bytes in both directions, unread."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from aiohttp import web

from outgate.front.upstream import READ_BYTES, Upstream

_HELD_BYTES_MAX: Final = 256 * 1024
"""Of the client's, before its connection is not read any more until the devbox took some."""


async def pass_upgraded(request: web.BaseRequest, upstream: Upstream, note: Callable[[], None]) -> None:
    """Pass bytes until either side ends. ``note`` hears whenever some passed."""
    tap = _Tap(request)
    # The one way to get at a connection's bytes in aiohttp; its own WebSockets are read by it.
    request.protocol.set_parser(tap)  # type: ignore[arg-type] # it asks for no more than feed_data and feed_eof
    up = asyncio.ensure_future(_pass_up(tap, upstream, note))
    down = asyncio.ensure_future(_pass_down(request, upstream, note))
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _pass_up(tap: "_Tap", upstream: Upstream, note: Callable[[], None]) -> None:
    while data := await tap.read():
        upstream.writer.write(data)
        await upstream.writer.drain()
        note()


async def _pass_down(request: web.BaseRequest, upstream: Upstream, note: Callable[[], None]) -> None:
    data = upstream.take_rest()
    while data or (data := await upstream.reader.read(READ_BYTES)):
        if request.transport is None:
            return
        request.transport.write(data)
        await request.writer.drain()
        note()
        data = b""


class _Tap:
    """Takes what a client sends after its request, in the place of aiohttp's WebSocket parser."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._protocol = request.protocol
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_ended = False
        self._is_paused = False
        self._news = asyncio.Event()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes from aiohttp, which goes on as long as the first of the result is False."""
        self._held.append(bytes(data))
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES_MAX and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_reading()
        self._news.set()
        return False, b""

    def feed_eof(self) -> None:
        """The connection ended."""
        self._is_ended = True
        self._news.set()

    async def read(self) -> bytes:
        """What came since the last call; empty at the end."""
        while not self._held and not self._is_ended:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._protocol.resume_reading()
        return data
