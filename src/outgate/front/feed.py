"""Keeps the table of tunnels as the api has it."""

import asyncio
from typing import Final, Protocol

import structlog

from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.front.routes import RouteTable
from outgate.model.tunnels import TunnelFeed

_WAIT_S: Final = 25.0
_RETRY_DELAYS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class FeedSource(Protocol):
    """Where the tunnels are known."""

    async def fetch_tunnels(self, after: int, wait_s: float) -> TunnelFeed:
        """What changed after ``after``. Raises PeerUnreachableError and PeerRefusedError."""
        ...


async def follow(api: FeedSource, table: RouteTable) -> None:
    """Until cancelled. While the api is silent, the tunnels that were known last go on."""
    log = structlog.get_logger("feed")
    failures = 0
    while True:
        try:
            feed = await api.fetch_tunnels(table.seq, _WAIT_S)
        except (PeerUnreachableError, PeerRefusedError) as error:
            failures += 1
            log.info("api_failed", failures=failures, why=error.message)
            await asyncio.sleep(_RETRY_DELAYS_S[min(failures, len(_RETRY_DELAYS_S)) - 1])
            continue
        failures = 0
        table.apply(feed)
