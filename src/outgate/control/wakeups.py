"""Wake-ups inside one api process: who waits for what, and who says that it may have changed.

A wake-up carries nothing. Who wakes reads the store, so a wake-up too many costs one read and a lost one
(another process changed something) costs the poll interval.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from outgate.control.errors import StoppingError


class Subject(Enum):
    """What may change."""

    DESIRED_STATE = "desired_state"
    """Of a host."""
    ENFORCED = "enforced"
    """Of a host."""
    DEVBOX = "devbox"
    FLOWS = "flows"
    """Of an account: there are new records."""
    TUNNELS = "tunnels"
    """Of a host: its front must hear of a change."""
    FRONT = "front"
    """Of a host: its front has taken something over."""
    WEBHOOKS = "webhooks"
    """Of all accounts (the id is empty): there may be something to deliver."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that may change: a subject and the id of the host, devbox or account."""

    subject: Subject
    id: str


class Watch:
    """A registered interest. Changes between two calls of :meth:`wait` are not lost."""

    def __init__(self, registry: "Wakeups") -> None:
        self._registry = registry
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Let the waiter look again."""
        self._event.set()

    async def wait(self, timeout_s: float) -> None:
        """Return at the next change, or after ``timeout_s``. Raises StoppingError when the api ends."""
        self._registry.check_open()
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()
        self._registry.check_open()


class Wakeups:
    """The registry. Belongs to the event loop's thread.

    Bounded by the requests that may be open at once: each holds one watch, for as long as it waits.
    """

    def __init__(self) -> None:
        self._watches: dict[Topic, set[Watch]] = {}
        self._is_closed = False

    @contextmanager
    def watch(self, *topics: Topic) -> Iterator[Watch]:
        """Interest in ``topics`` for the length of the block. Register first, then read, then wait."""
        watch = Watch(self)
        for topic in topics:
            self._watches.setdefault(topic, set()).add(watch)
        try:
            yield watch
        finally:
            for topic in topics:
                watchers = self._watches[topic]
                watchers.discard(watch)
                if not watchers:
                    del self._watches[topic]

    def notify(self, *topics: Topic) -> None:
        """Wake everybody who watches any of ``topics``."""
        for topic in topics:
            for watch in self._watches.get(topic, ()):
                watch.wake()

    def close(self) -> None:
        """End all waits, now and later: the api stops."""
        self._is_closed = True
        self.notify(*self._watches)

    def check_open(self) -> None:
        """Raise StoppingError once :meth:`close` was called."""
        if self._is_closed:
            raise StoppingError("The server is being stopped; try again in a moment.")
