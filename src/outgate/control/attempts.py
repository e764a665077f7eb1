"""Keys and tokens that are shown by strangers: looked up, with a limit on wrong ones for each client."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog

from outgate.clock import monotonic_s
from outgate.control.errors import TooManyAttemptsError
from outgate.core.clients import AttemptLimit

T = TypeVar("T")

_log: Final = structlog.get_logger(__name__)


class Attempts:
    """Those at one kind of secret (``what``). Belongs to the event loop's thread."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._limit = AttemptLimit()
        self._under_way: dict[tuple[str, bytes], asyncio.Future[Any]] = {}

    def check(self, client: str, proof: bytes, failures_max: int) -> None:
        """Raise TooManyAttemptsError while nothing that the client shows is to be looked at."""
        wait_s = self._limit.wait_s(client, proof, failures_max, monotonic_s())
        if wait_s:
            raise TooManyAttemptsError(wait_s)

    def prove(self, client: str, proof: bytes) -> None:
        """The client showed a right one, which was known without looking."""
        self._limit.prove(client, proof)

    async def look(
        self, client: str, proof: bytes, failures_max: int, find: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        """What ``find`` finds for ``proof`` (a digest). Raises what it raises, and TooManyAttemptsError."""
        self.check(client, proof, failures_max)
        shown = (client, proof)
        looking = self._under_way.get(shown)
        if looking is None:
            # Counted before anybody knows: of a thousand guesses at once none would know of the others.
            self._limit.fail(client, failures_max, monotonic_s())
            # A client's first requests come together: they are one attempt, and one look.
            looking = self._under_way[shown] = asyncio.ensure_future(self._find(client, proof, failures_max, find))
            looking.add_done_callback(lambda _: self._under_way.pop(shown, None))
        found: T | None = await asyncio.shield(looking)
        return found

    async def _find(
        self, client: str, proof: bytes, failures_max: int, find: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        try:
            found = await find()
        except BaseException:
            self._limit.forgive(client, failures_max)
            raise
        if found is not None:
            self._limit.forgive(client, failures_max)
            self._limit.prove(client, proof)
        elif self._limit.is_news(client):
            _log.warning("too many wrong keys", what=self._what, client=client, per_minute_max=failures_max)
        return found
