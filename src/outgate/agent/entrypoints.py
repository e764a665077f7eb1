"""Entrypoints: a devbox whose entrypoint has ended is shut down."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from outgate.agent.boot import entrypoint_id
from outgate.model.desired import DevboxDocument
from outgate.runtime.base import ExecStatus, Runtime, SandboxError

_WAIT_S: Final = 60.0


class Entrypoints:
    """Follows the entrypoints of running devboxes, one task each. Belongs to the event loop's thread."""

    def __init__(self, runtime: Runtime, on_end: Callable[[str], None]) -> None:
        self._runtime, self._on_end = runtime, on_end
        self._log = structlog.get_logger("entrypoints")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()

    def follow(self, devbox: DevboxDocument) -> None:
        """Notice when the entrypoint of a running devbox ends. Does nothing when it has none or is followed."""
        if devbox.entrypoint is not None and devbox.id not in self._tasks:
            self._tasks[devbox.id] = asyncio.get_running_loop().create_task(self._follow(devbox))

    def is_over(self, devbox_id: str) -> bool:
        """Whether the entrypoint was seen to have ended."""
        return devbox_id in self._over

    def forget(self, devbox_id: str) -> None:
        """The sandbox goes; what is known of its entrypoint goes with it."""
        self._over.discard(devbox_id)
        task = self._tasks.pop(devbox_id, None)
        if task is not None:
            task.cancel()

    async def aclose(self) -> None:
        """Stop following."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, devbox: DevboxDocument) -> None:
        try:
            while True:
                state = await self._runtime.exec_wait(devbox.id, entrypoint_id(devbox), _WAIT_S)
                if state.status is ExecStatus.COMPLETED:
                    break
        except SandboxError as error:
            # Its sandbox is gone or does not know it: either way nobody runs it any more.
            self._log.info("entrypoint_lost", devbox_id=devbox.id, why=error.message)
        self._over.add(devbox.id)
        self._on_end(devbox.id)
