"""What all relayed connections share: limits, clocks' queues, pipes, and the gate's table around them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from outgate.dataplane.driver import FLOWS_PER_DEVBOX_MAX
from outgate.dataplane.gate_measures import GateLatencies
from outgate.dataplane.gate_table import GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.pipes import PipePool
from outgate.dataplane.records import Recorder
from outgate.dataplane.relay_verdicts import VerdictCache
from outgate.dataplane.resolver import Resolver

T = TypeVar("T")

_DESCRIPTORS_PER_FLOW: Final = 2
_DESCRIPTORS_SPARED: Final = 1024
"""For pipes in use, the DNS gate's sockets, listeners and the control socket."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Bounds of the relay. Everything a devbox could pile up has one.

    ``flows_per_devbox``: as many as the kernel lets one devbox track. ``undecided_per_devbox``: flows that may
    hold first bytes (18 KiB each) at one time. ``flows``: all devboxes together; two descriptors each.
    ``refused_per_devbox``: flows that are being told why they were refused; one more is reset without a word.
    ``dial_s``: time to connect upstream, enough for a lost SYN to be sent thrice. ``linger_s``: how long a refused
    HTTP client may take to read the page.
    """

    flows_per_devbox: int = FLOWS_PER_DEVBOX_MAX
    undecided_per_devbox: int = 1024
    refused_per_devbox: int = 64
    flows: int = 8192
    dial_s: float = 15.0
    linger_s: float = 3.0


def limits_for_descriptors(descriptors_max: int, flows_per_devbox: int) -> RelayLimits:
    """Limits for a process that may open ``descriptors_max`` descriptors (RLIMIT_NOFILE)."""
    flows = max(1, (descriptors_max - _DESCRIPTORS_SPARED) // _DESCRIPTORS_PER_FLOW)
    return RelayLimits(flows_per_devbox=flows_per_devbox, flows=flows)


class DueQueue(Generic[T]):
    """Things that are due a fixed time after they were put in. Putting in and taking out cost the same for any number.

    A timer of the loop for each connection would cost more than all its other bookkeeping.
    """

    __slots__ = ("_after_s", "_due")

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._due: dict[T, float] = {}

    def put(self, item: T, now_s: float) -> None:
        """Have ``item`` due ``after_s`` from now; one that is in already keeps its time."""
        if item not in self._due:
            self._due[item] = now_s + self._after_s

    def discard(self, item: T) -> None:
        """Take ``item`` out, if it is in."""
        self._due.pop(item, None)

    def take_due(self, now_s: float) -> Iterator[T]:
        """Take out what is due at ``now_s``, the oldest first."""
        due = []
        for item, when_s in self._due.items():
            if when_s > now_s:
                break
            due.append(item)
        for item in due:
            if self._due.pop(item, None) is not None:
                yield item

    def __len__(self) -> int:
        return len(self._due)


class DevboxFlows(Generic[T]):
    """The flows of one devbox; ``refused`` are those that are still read to their end."""

    __slots__ = ("flows", "refused", "undecided")

    def __init__(self) -> None:
        self.flows: set[T] = set()
        self.refused: set[T] = set()
        self.undecided = 0


@dataclass(slots=True, eq=False)
class RelayContext(Generic[T]):
    """What a connection of type ``T`` needs around it."""

    loop: Loop
    table: GateTable
    resolver: Resolver
    recorder: Recorder
    limits: RelayLimits
    pool: PipePool
    verdicts: VerdictCache
    handshakes: DueQueue[T]
    dials: DueQueue[T]
    lingers: DueQueue[T]
    front_socket: str | None = None
    """Where the tunnel front takes connections out of devboxes; None where there is none."""
    latencies: GateLatencies = field(default_factory=GateLatencies)
    flows_open: int = 0
    """Of all devboxes."""
