"""The log of one build, on its way to the api: sent in parts while the build goes on, bounded whatever it says."""

import asyncio
from collections import deque
from typing import Final, Protocol

import structlog

from outgate import clock
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.model.desired import BuildLine, BuildLogPart

LOG_BYTES_MAX: Final = 2 << 20
"""What is kept of an attempt's log from its beginning: some 20,000 lines."""
TAIL_LINES_MAX: Final = 200
"""What is kept of the end of a longer one, where the reason of a failure stands."""
LINE_LENGTH_MAX: Final = 8192
"""A longer line is cut: progress bars write megabytes without an end of line."""
_PART_LINES_MAX: Final = 1000
_SEND_EVERY_S: Final = 0.5
_LAST_WORDS_S_MAX: Final = 10.0
"""How long the end of a build waits for an api that does not take its log."""
_RETRY_S: Final = 0.5


class LogTarget(Protocol):
    """Where logs of builds go."""

    async def store_build_log(self, blueprint_id: str, part: BuildLogPart) -> None:
        """Keep a part. Raises PeerUnreachableError and PeerRefusedError."""


class BuildLog:
    """Takes lines at any time and sends them from a task of its own. Belongs to the event loop's thread."""

    def __init__(self, target: LogTarget, blueprint_id: str, attempt: int) -> None:
        self._target, self._blueprint_id, self._attempt = target, blueprint_id, attempt
        self._waiting: deque[BuildLine] = deque()
        self._tail: deque[BuildLine] = deque(maxlen=TAIL_LINES_MAX)
        self._bytes_left = LOG_BYTES_MAX
        self._dropped = 0
        self._number = 0
        self._sender: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("builds")

    def start(self) -> None:
        """Begin to send."""
        self._sender = asyncio.get_running_loop().create_task(self._send_again_and_again())

    def say(self, message: str, *, level: str = "info") -> None:
        """Add a line, or as many as ``message`` has."""
        for text in message.splitlines() or [""]:
            line = BuildLine(clock.wall_ms(), text[:LINE_LENGTH_MAX], level)
            size = len(line.message.encode()) + 64
            if self._bytes_left >= size:
                self._bytes_left -= size
                self._waiting.append(line)
                continue
            self._bytes_left = 0  # nothing between what was dropped and the end
            self._dropped += len(self._tail) == TAIL_LINES_MAX
            self._tail.append(line)

    async def aclose(self) -> None:
        """Send what is left, as far as the api takes it within a bounded time."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        if self._dropped:
            self._waiting.append(BuildLine(clock.wall_ms(), f"… {self._dropped} lines are left out …", "warning"))
        self._waiting.extend(self._tail)
        try:
            async with asyncio.timeout(_LAST_WORDS_S_MAX):
                await self._send_all()
        except TimeoutError:
            self._log.warning("build_log_lost", blueprint_id=self._blueprint_id, lines=len(self._waiting))

    async def _send_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_SEND_EVERY_S)
            await self._send_all()

    async def _send_all(self) -> None:
        while self._waiting:
            lines = tuple(self._waiting[position] for position in range(min(len(self._waiting), _PART_LINES_MAX)))
            try:
                await self._target.store_build_log(self._blueprint_id, BuildLogPart(self._attempt, self._number, lines))
            except (PeerUnreachableError, PeerRefusedError) as error:
                self._log.debug("build_log_delayed", blueprint_id=self._blueprint_id, why=error.message)
                await asyncio.sleep(_RETRY_S)
                continue
            self._number += 1
            for _ in lines:
                self._waiting.popleft()
