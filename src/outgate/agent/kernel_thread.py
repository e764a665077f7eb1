"""Threads for the driver: it blocks, enters namespaces on its way, and is for one thread at a time but for aborts."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


class KernelThread:
    """Runs calls one after another, in the order in which they were handed in."""

    def __init__(self, name: str = "kernel") -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, call: Callable[[], _Result]) -> _Result:
        """What ``call`` returns or raises, without holding up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def submit(self, call: Callable[[], _Result]) -> "Future[_Result]":
        """Have ``call`` run; nobody waits for it."""
        return self._executor.submit(call)

    def close(self) -> None:
        """Finish the call that runs; those behind it are dropped."""
        self._executor.shutdown(cancel_futures=True)
