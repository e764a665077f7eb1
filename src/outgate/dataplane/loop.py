"""The gate's event loop: plain epoll, no tasks, one thread.

asyncio's datagram transport costs 21 µs a query more than this and its streams move a third of the
bytes (measured), so the hot path runs on epoll itself. One turn of the loop is: wait, read the clock
once, hand out the events, run the timers that are due, run what was asked for "soon", and at last the
turn-end hooks, which is where everything that came up in the turn is committed to the kernel in one batch.
"""

import heapq
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from outgate import clock

EventCallback = Callable[[int], None]
"""Called with the epoll event mask."""
Callback = Callable[[], None]

_EVENTS_PER_TURN_MAX: Final = 256
"""Bounds how long a turn can get before timers and turn-end hooks run again."""
_CANCELLED_MAX: Final = 512
"""Cancelled timers that may lie in the heap before it is built anew (unless fewer than half are)."""


class Timer:
    """A call that is due at ``when_s`` unless it is cancelled. Made by :meth:`Loop.call_at`."""

    __slots__ = ("_loop", "callback", "when_s")

    def __init__(self, loop: "Loop", when_s: float, callback: Callback) -> None:
        self.when_s = when_s
        self.callback: Callback | None = callback
        self._loop = loop

    def __lt__(self, other: "Timer") -> bool:
        return self.when_s < other.when_s

    def cancel(self) -> None:
        """Make sure that it does not run. May be called at any time and more than once."""
        if self.callback is not None:
            self.callback = None
            self._loop.count_cancelled()


class Loop:
    """Readiness, timers and turn-end hooks.

    ``on_error`` hears of an exception that a callback let out: one bad socket must not take the other
    devboxes' traffic down. By default the exception leaves :meth:`run`.
    """

    def __init__(
        self,
        on_error: Callable[[Exception], None] | None = None,
        monotonic_s: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        self._on_error = on_error
        self._monotonic_s = monotonic_s
        self.read_clock = monotonic_s
        """Monotonic seconds at this moment, for measuring what a turn takes; without a call in between."""
        self._epoll = select.epoll()
        self._callbacks: dict[int, EventCallback] = {}
        self._fresh: set[int] = set()
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._soon: deque[Callback] = deque()
        self._turn_end: list[Callback] = []
        self._now_s = monotonic_s()
        self._is_stopping = False

    def now(self) -> float:
        """Monotonic seconds, as of the start of this turn."""
        return self._now_s

    def register(self, fd: int, events: int, callback: EventCallback) -> None:
        """Call ``callback`` with the event mask whenever ``fd`` is ready for ``events`` (``select.EPOLL*``)."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback
        self._fresh.add(fd)

    def modify(self, fd: int, events: int) -> None:
        """Wait for ``events`` on a registered ``fd`` from now on."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Forget ``fd``; call it before the descriptor is closed. Does nothing for a strange one."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """As :meth:`unregister`, for a descriptor that is closed right after: epoll(7) lets go of it by itself then.

        Only for descriptors that were never duplicated. It saves a system call for each connection's end.
        """
        self._callbacks.pop(fd, None)

    def call_at(self, when_s: float, callback: Callback) -> Timer:
        """Run ``callback`` in the first turn that starts at ``when_s`` (as :meth:`now` counts) or later."""
        timer = Timer(self, when_s, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def call_soon(self, callback: Callback) -> None:
        """Run ``callback`` in this turn after the events, or in the next turn without waiting."""
        self._soon.append(callback)

    def at_turn_end(self, callback: Callback) -> None:
        """Run ``callback`` at the end of every turn, in the order of these calls, as long as the loop lives."""
        self._turn_end.append(callback)

    def run(self) -> None:
        """Turn until :meth:`stop`; not at all when that was called already."""
        while not self._is_stopping:
            self.run_once()

    def stop(self) -> None:
        """Leave :meth:`run` after this turn, for good."""
        self._is_stopping = True

    def close(self) -> None:
        """Give the epoll descriptor back."""
        self._epoll.close()

    def run_once(self, timeout_s_max: float | None = None) -> None:
        """One turn; waits until something happens, at most ``timeout_s_max``."""
        ready = self._epoll.poll(self._wait_s(timeout_s_max), _EVENTS_PER_TURN_MAX)
        self._now_s = self._monotonic_s()
        self._fresh.clear()
        for fd, events in ready:
            # A descriptor number that was closed and given out again within this turn: the event is the
            # old owner's. What the new owner is ready for comes with the next poll.
            callback = None if fd in self._fresh else self._callbacks.get(fd)
            if callback is not None:
                try:
                    callback(events)
                except Exception as error:  # noqa: BLE001 - reported, or raised again by _report
                    self._report(error)
        self._run_timers()
        self._run_soon()
        for hook in self._turn_end:
            self._run(hook)

    def count_cancelled(self) -> None:
        """For :class:`Timer`: one more entry of the heap is dead."""
        self._cancelled += 1
        if self._cancelled > _CANCELLED_MAX and self._cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if timer.callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _wait_s(self, timeout_s_max: float | None) -> float:
        if self._soon:
            return 0
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        if not self._timers:
            return -1 if timeout_s_max is None else timeout_s_max
        due_s = max(0.0, self._timers[0].when_s - self._monotonic_s())
        return due_s if timeout_s_max is None else min(due_s, timeout_s_max)

    def _run_timers(self) -> None:
        while self._timers and self._timers[0].when_s <= self._now_s:
            timer = heapq.heappop(self._timers)
            if timer.callback is None:
                self._cancelled -= 1
                continue
            callback, timer.callback = timer.callback, None
            self._run(callback)

    def _run_soon(self) -> None:
        # Only what is there now: a callback that asks for "soon" again must not keep the sockets waiting.
        for _ in range(len(self._soon)):
            self._run(self._soon.popleft())

    def _run(self, callback: Callback) -> None:
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - reported, or raised again by _report
            self._report(error)

    def _report(self, error: Exception) -> None:
        if self._on_error is None:
            raise error
        self._on_error(error)
