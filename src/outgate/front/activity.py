"""Which tunnels are in use, told to the api now and then: use keeps a devbox from being idle."""

import asyncio
from typing import Final, Protocol

import structlog

from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.model.tunnels import ActivityNote

_INTERVAL_S: Final = 2.0
"""Idle times are minutes; a second or two of them is nobody's loss."""


class ActivitySink(Protocol):
    """Who wants to know."""

    async def note_activity(self, note: ActivityNote) -> None:
        """These tunnels were used. Raises PeerUnreachableError and PeerRefusedError."""
        ...


class Activity:
    """Belongs to the event loop's thread. Bounded by the tunnels there are."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def note(self, key: str) -> None:
        """Bytes pass through this tunnel."""
        self._keys.add(key)

    async def run(self, sink: ActivitySink) -> None:
        """Tell ``sink`` until cancelled. What could not be told is told the next time."""
        log = structlog.get_logger("activity")
        while True:
            await asyncio.sleep(_INTERVAL_S)
            if not self._keys:
                continue
            told, self._keys = self._keys, set()
            try:
                await sink.note_activity(ActivityNote(tuple(sorted(told))))
            except (PeerUnreachableError, PeerRefusedError) as error:
                self._keys |= told
                log.info("not_noted", why=error.message)
