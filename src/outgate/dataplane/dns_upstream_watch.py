"""Which resolvers answer. One that does not is a warning, raised and cleared with care: it must not come and go.

A few lost attempts in a row (a name whose zone is broken does that, too) only raise a suspicion. It is followed up by
questions that every resolver can answer, and that name nobody; what those find is believed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from outgate.dataplane.dns_exchange import ServerAddress
from outgate.dataplane.loop import Loop

UPSTREAM_SILENT: Final = "upstream_silent"
SUSPICIOUS_FAILURES: Final = 3
"""Attempts without an answer, and without any other answer between them, before a resolver is looked at."""
PROBE_EVERY_S: Final = 5.0
_PROBES_LOST_MIN: Final = 2
"""Probes that went unanswered before it is said."""
_ANSWERS_MIN: Final = 2
"""Answers in a row that end it."""


@dataclass(slots=True)
class _Server:
    name: str
    failures: int = 0
    answers: int = 0
    probes: int = 0
    is_watched: bool = False
    is_silent: bool = False


class UpstreamWatch:
    """Told of each attempt's end. ``probe`` asks one resolver; ``warn`` is told a code and a text, empty when well."""

    def __init__(
        self,
        loop: Loop,
        servers: Sequence[ServerAddress],
        probe: Callable[[int], None],
        warn: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._servers = tuple(_Server(f"{server.address} (port {server.port})") for server in servers)
        self._probe = probe
        self._warn = warn

    def failed(self, number: int) -> None:
        """An attempt at the server of that number was not answered in time, or could not be made."""
        server = self._servers[number]
        server.failures += 1
        server.answers = 0
        if server.failures >= SUSPICIOUS_FAILURES and not server.is_watched:
            server.is_watched, server.probes = True, 0
            self._look_later(number)

    def answered(self, number: int) -> None:
        """It said something, a refusal included."""
        server = self._servers[number]
        server.failures = 0
        if not server.is_silent:
            return
        server.answers += 1
        if server.answers >= _ANSWERS_MIN:
            server.is_silent = False
            self._tell()

    def _look(self, number: int) -> None:
        server = self._servers[number]
        if not server.failures and not server.is_silent:
            server.is_watched = False
            return
        if server.failures and server.probes >= _PROBES_LOST_MIN and not server.is_silent:
            server.is_silent, server.answers = True, 0
            self._tell()
        server.probes = server.probes + 1 if server.failures else 0
        self._look_later(number)
        self._probe(number)

    def _look_later(self, number: int) -> None:
        self._loop.call_at(self._loop.now() + PROBE_EVERY_S, lambda: self._look(number))

    def _tell(self) -> None:
        silent = [server.name for server in self._servers if server.is_silent]
        others = [server.name for server in self._servers if not server.is_silent]
        if not silent:
            self._warn(UPSTREAM_SILENT, "")
            return
        means = f"Lookups go to {', '.join(others)}." if others else "Lookups of allowed names fail until one does."
        self._warn(UPSTREAM_SILENT, f"No answer comes from the resolver {', '.join(silent)}. {means}")
