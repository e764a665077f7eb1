"""Telling programs in devboxes that their revoked flows are dead: after the update was reported, a few at a time.

The flows are dead already when this is asked for, so nobody waits. Requests of quick updates are gathered, and have a
thread of their own: each walk through the kernel's table of flows takes some 10 ms even if it is empty (its size is
what counts), and the next update shall not wait for it.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

import structlog

from outgate.agent.kernel_thread import KernelThread
from outgate.dataplane.driver import Driver

if TYPE_CHECKING:
    from concurrent.futures import Future

DELAY_S: Final = 0.01
"""Lets the report of the update go first; a tenth of what design §3 allows until the program notices."""


class Aborts:
    """Gathers revoked grants and has their sockets destroyed. Belongs to the event loop's thread."""

    def __init__(self, driver: Driver, live: Callable[[], Collection[int]]) -> None:
        """``live`` says which grants are in force at the moment; one that is again is left alone."""
        self._driver, self._live = driver, live
        self._thread = KernelThread("aborts")
        self._log = structlog.get_logger("aborts")
        self._grants: set[int] = set()
        self._devbox_ids: set[str] = set()

    def request(self, grants: Collection[int], devbox_ids: Collection[str]) -> None:
        """Have the sockets of flows with these grants destroyed in these devboxes, soon."""
        if not self._grants:
            asyncio.get_running_loop().call_later(DELAY_S, self._begin)
        self._grants.update(grants)
        self._devbox_ids.update(devbox_ids)

    def _begin(self) -> None:
        grants, devbox_ids = self._grants - set(self._live()), self._devbox_ids
        self._grants, self._devbox_ids = set(), set()
        if grants:
            future = self._thread.submit(lambda: self._driver.abort_revoked(grants, devbox_ids))
            future.add_done_callback(self._note_end)

    def _note_end(self, future: "Future[int]") -> None:
        error = future.exception()
        if error is None:
            self._log.info("sockets_aborted", count=future.result())
        else:
            self._log.warning("abort_failed", error=str(error))
