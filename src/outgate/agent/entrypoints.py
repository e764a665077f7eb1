"""Entrypoints: a devbox whose entrypoint has ended is shut down."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from outgate.agent.boot import entrypoint_id
from outgate.agent.record import DevboxRecord
from outgate.model.desired import DevboxDocument
from outgate.runtime.base import EXIT_STATUS_KILLED, ExecStatus, Runtime, SandboxError

_WAIT_S: Final = 60.0


class Entrypoints:
    """Follows the entrypoints of running devboxes, one task each. Belongs to the event loop's thread.

    ``look_again`` observes the sandboxes: an entrypoint that was killed may have been so for want of memory.
    """

    def __init__(
        self, runtime: Runtime, look_again: Callable[[], Awaitable[None]], on_end: Callable[[str], None]
    ) -> None:
        self._runtime, self._look_again, self._on_end = runtime, look_again, on_end
        self._log = structlog.get_logger("entrypoints")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._statuses: dict[str, int | None] = {}

    def follow(self, devbox: DevboxDocument, record: DevboxRecord) -> None:
        """Notice when the entrypoint of a running devbox ends. Does nothing when it has none or is followed."""
        if devbox.entrypoint is not None and devbox.id not in self._tasks:
            following = self._follow(devbox.id, entrypoint_id(record))
            self._tasks[devbox.id] = asyncio.get_running_loop().create_task(following)

    def is_over(self, devbox_id: str) -> bool:
        """Whether the entrypoint was seen to have ended."""
        return devbox_id in self._statuses

    def is_killed(self, devbox_id: str) -> bool:
        """Whether it was seen to have ended by SIGKILL."""
        return self._statuses.get(devbox_id) == EXIT_STATUS_KILLED

    def forget(self, devbox_id: str) -> None:
        """The sandbox goes; what is known of its entrypoint goes with it."""
        self._statuses.pop(devbox_id, None)
        task = self._tasks.pop(devbox_id, None)
        if task is not None:
            task.cancel()

    async def aclose(self) -> None:
        """Stop following."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, devbox_id: str, execution_id: str) -> None:
        status: int | None = None
        try:
            while True:
                state = await self._runtime.exec_wait(devbox_id, execution_id, _WAIT_S)
                if state.status is ExecStatus.COMPLETED:
                    status = state.exit_status
                    break
            if status == EXIT_STATUS_KILLED:
                await self._look_again()
        except (SandboxError, OSError) as error:
            # Its sandbox is gone or does not know it: either way nobody runs it any more.
            self._log.info("entrypoint_lost", devbox_id=devbox_id, why=str(error))
        self._statuses[devbox_id] = status
        self._on_end(devbox_id)
