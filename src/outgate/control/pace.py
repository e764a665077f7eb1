"""How slowly a client may send: a body of one byte a second would hold its place for days."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from outgate.clock import monotonic_s
from outgate.control.errors import TransferStalledError

STALL_S_MAX: Final = 60.0
"""Nothing at all for this long ends a transfer."""
BYTES_PER_S_MIN: Final = 4096
"""A modem's speed. Of the time that a transfer takes, only what was spent waiting for the client counts."""


@dataclass(slots=True)
class Pace:
    """One transfer, as far as it has come."""

    stall_s_max: float = field(default_factory=lambda: STALL_S_MAX)
    _received: int = 0
    _waited_s: float = 0.0

    async def next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """The next of ``chunks``, None at their end. Raises TransferStalledError, and what ``chunks`` raise."""
        left_s = self.stall_s_max + self._received / BYTES_PER_S_MIN - self._waited_s
        since_s = monotonic_s()
        try:
            async with asyncio.timeout(min(self.stall_s_max, left_s)):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise TransferStalledError(
                f"Nothing came for {self.stall_s_max:g} s, or less than {BYTES_PER_S_MIN:,} bytes a second;"
                " it was given up. Send it again."
            ) from None
        self._waited_s += monotonic_s() - since_s
        self._received += 0 if chunk is None else len(chunk)
        return chunk
