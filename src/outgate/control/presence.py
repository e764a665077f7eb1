"""Which hosts are there right now, as this process sees it, and what they enforce."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from outgate.model.desired import HostReport

STORED_EVERY_MS: Final = 5_000
"""How old the stored word of a host may get while it says the same again."""
GRACE_S_MAX: Final = 5.0
"""An agent asks for its desired state again at once; a host silent for longer is gone."""


class Presence:
    """Memory of one api process. Belongs to the event loop's thread; one entry per host."""

    def __init__(self) -> None:
        self._polls: dict[str, int] = {}
        self._seen_s: dict[str, float] = {}
        self._enforced: dict[str, int] = {}
        self._stored: dict[str, tuple[HostReport, int]] = {}

    @contextmanager
    def polling(self, host_id: str) -> Iterator[None]:
        """The host has a request open for the length of the block; call :meth:`see` when it ends."""
        self._polls[host_id] = self._polls.get(host_id, 0) + 1
        try:
            yield
        finally:
            self._polls[host_id] -= 1

    def see(self, host_id: str, now_s: float) -> None:
        """The host was heard of at ``now_s`` (monotonic)."""
        self._seen_s[host_id] = now_s

    def is_present(self, host_id: str, now_s: float) -> bool:
        """Whether the host has a request open here, or had one a moment ago."""
        if self._polls.get(host_id, 0) > 0:
            return True
        seen_s = self._seen_s.get(host_id)
        return seen_s is not None and now_s - seen_s <= GRACE_S_MAX

    def set_enforced(self, host_id: str, seq: int) -> None:
        """The host enforces everything up to ``seq``. (It starts low again after its agent's restart.)"""
        self._enforced[host_id] = seq

    def note_stored(self, host_id: str, said: HostReport, now_ms: int) -> None:
        """What the host said was stored at ``now_ms`` (Unix milliseconds)."""
        self._stored[host_id] = (said, now_ms)

    def is_stored(self, host_id: str, said: HostReport, now_ms: int) -> bool:
        """Whether just this was stored a moment ago."""
        known = self._stored.get(host_id)
        return known is not None and known[0] == said and now_ms - known[1] <= STORED_EVERY_MS

    def enforced(self, host_id: str) -> int | None:
        """What the host enforces as far as this process heard; None when it heard nothing."""
        return self._enforced.get(host_id)
