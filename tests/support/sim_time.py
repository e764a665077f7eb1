"""An event loop whose clock jumps to the next timer whenever nothing else is to be done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Hours of sleeping pass in milliseconds. Nothing in it may wait for a thread or a process."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined] # asyncio's own heap
        if not self._ready and timers:  # type: ignore[attr-defined] # likewise
            self.now_s = max(self.now_s, min(timers))
        super()._run_once()  # type: ignore[misc] # asyncio's own turn


def run_simulated(work: Coroutine[Any, Any, _T], *, timeout_s: float = 3600) -> _T:
    """Run ``work`` to its end on simulated time; TimeoutError after ``timeout_s`` of it."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(asyncio.wait_for(work, timeout_s))
