"""What hosts counted, as this process heard it last. Nothing of it is stored: Prometheus keeps what was."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from outgate.model.measures import HostMeasures

FORGOTTEN_S: Final = 60.0
"""A host that was silent for so long is gone, or asks another api process now."""


@dataclass(frozen=True, slots=True)
class HeardMeasures:
    """``measures`` of a host, which came at ``heard_s`` (monotonic)."""

    measures: HostMeasures
    heard_s: float


class HostMeasurements:
    """One word of each host. Belongs to the event loop's thread; hosts are those that the store knows."""

    def __init__(self) -> None:
        self._heard: dict[str, HeardMeasures] = {}

    def take(self, host_id: str, measures: HostMeasures, now_s: float) -> None:
        """Believe the host, unless something newer of the same life of its agent is known."""
        known = self._heard.get(host_id)
        if known is not None and _is_late(known.measures, measures):
            return
        self._heard[host_id] = HeardMeasures(measures, now_s)

    def recent(self, now_s: float) -> Iterator[tuple[str, HeardMeasures]]:
        """Hosts that were heard of in the last minute; the others are forgotten."""
        for host_id in [key for key, heard in self._heard.items() if now_s - heard.heard_s > FORGOTTEN_S]:
            del self._heard[host_id]
        yield from sorted(self._heard.items())


def _is_late(known: HostMeasures, measures: HostMeasures) -> bool:
    return known.boot_id == measures.boot_id and known.number >= measures.number
