"""Server-sent events (WHATWG HTML §9.2), as both official clients read them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from outgate.client.streamed import StreamedResponse
from outgate.control.services import Services
from outgate.errors import OutgateError

EVENT_STREAM: Final = "text/event-stream"
PING_S: Final = 10.0
"""A silent stream says that it lives: clients and proxies between give up after 30 s and more without a byte."""
_STOP_LOOK_S: Final = 1.0
"""How soon a stream notices that the server is being stopped; a stop waits three seconds for answers under way."""

_PING: Final = b": still here\n\n"
# Both clients take this for "come again from where you are", without counting it as a failure.
_COME_AGAIN: Final = b'event: error\ndata: {"code":408,"message":"The stream was interrupted; continue it."}\n\n'

_log: Final = structlog.get_logger(__name__)


def respond_events(services: Services, events: AsyncGenerator[msgspec.Struct, None]) -> StreamedResponse:
    """Each of ``events`` as it comes, back to back as fast as the client takes them; ends when they do.

    When they break off, or the server is stopped, the client is told to come again.
    """
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamedResponse(_render_all(services, events), EVENT_STREAM, headers)


async def _render_all(services: Services, events: AsyncGenerator[msgspec.Struct, None]) -> AsyncGenerator[bytes, None]:
    upcoming: asyncio.Task[Any] | None = None
    services.metrics.streams.inc()
    try:
        # The first bytes go out before the first event: whoever waits for the headers has an answer.
        yield _PING
        silent_s = 0.0
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events, None))
            await asyncio.wait((upcoming,), timeout=_STOP_LOOK_S)
            if upcoming.done():
                event, upcoming, silent_s = upcoming.result(), None, 0.0
                if event is None:
                    return
                yield b"data: " + msgspec.json.encode(event) + b"\n\n"
                continue
            services.wakeups.check_open()
            silent_s += _STOP_LOOK_S
            if silent_s >= PING_S:
                silent_s = 0.0
                yield _PING
    except OutgateError as error:
        _log.info("stream interrupted", why=error.message)
        yield _COME_AGAIN
    finally:
        services.metrics.streams.dec()
        if upcoming is not None:
            upcoming.cancel()
            with suppress(asyncio.CancelledError, OutgateError):
                await upcoming
        await events.aclose()
