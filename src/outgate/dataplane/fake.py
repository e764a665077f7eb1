"""The driver's protocol in memory, for tests of whatever sits above it. It keeps the same promises.

What the kernel would do by itself is driven by the test: flows (:meth:`FakeDriver.open_flow`), pins, denied
packets, links that cannot be made, and drift.
"""

import contextlib
import os
from collections import Counter, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from outgate.dataplane.conntrack_events import FlowEvent
from outgate.dataplane.driver import Applied, Denial, DevboxLink, DriverError, RouterState, check_state
from outgate.dataplane.elements import live_grants
from outgate.dataplane.layout import NetworkLayout
from outgate.dataplane.pin_elements import Pin
from outgate.model.addresses import IPAddress

_EMPTY = RouterState()


@dataclass(frozen=True, slots=True)
class FakeFlow:
    """One TCP flow of a devbox under a grant."""

    devbox_id: str
    grant: int


class FakeDenials:
    """Denied packets that a test makes up."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[Denial] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, denial: Denial) -> None:
        """One packet was denied."""
        self._waiting.append(denial)
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """Readable when there are some."""
        return self._event

    def read(self) -> tuple[Denial, ...]:
        """Those that are there now. Never blocks."""
        if self._waiting:
            os.eventfd_read(self._event)
        denials = tuple(self._waiting)
        self._waiting.clear()
        return denials

    def close(self) -> None:
        """Stop listening. May be called twice."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1


class FakeFlowEvents:
    """Flows that a test makes up; each ``read`` takes ``batch_max`` of them."""

    def __init__(self, batch_max: int = 64) -> None:
        self.events = self.dropped = 0
        self.batch_max = batch_max
        self._waiting: deque[FlowEvent] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, *events: FlowEvent) -> None:
        """Flows began or ended."""
        self._waiting += events
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """Readable when there are some."""
        return self._event

    def read(self) -> tuple[tuple[FlowEvent, ...], bool]:
        """Some of those that are there now, and whether there are more. Never blocks."""
        taken = tuple(self._waiting.popleft() for _ in range(min(len(self._waiting), self.batch_max)))
        self.events += len(taken)
        if not self._waiting:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._event)
        return taken, bool(self._waiting)

    def close(self) -> None:
        """Stop listening. May be called twice."""
        if self._event >= 0:
            os.close(self._event)
            self._event = -1


@dataclass
class FakeDriver:
    """A kernel that is a few dictionaries. ``refuse_links`` names devboxes whose link cannot be made.

    ``refuse_with``, while it is set, makes ``set`` raise a DriverError with that text.
    """

    layout: NetworkLayout
    host_addresses: frozenset[IPAddress] = frozenset()
    refuse_links: set[str] = field(default_factory=set)
    refuse_with: str | None = None
    obstacles: tuple[str, ...] = ()
    flows: list[FakeFlow] = field(default_factory=list)
    history: list[RouterState] = field(default_factory=list)
    has_router: bool = field(default=False, init=False)
    _state: RouterState = field(default=_EMPTY, init=False)
    _is_known: bool = field(default=False, init=False)
    _drift: list[str] = field(default_factory=list, init=False)
    _pins: list[Pin] = field(default_factory=list, init=False)
    _denied: Counter[str] = field(default_factory=Counter, init=False)
    _denials: FakeDenials | None = field(default=None, init=False)
    _flow_events: FakeFlowEvents | None = field(default=None, init=False)

    @property
    def state(self) -> RouterState:
        """What is in force: devboxes without a link are missing."""
        return self._state

    def ensure_router(self) -> NetworkLayout:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        self.has_router = True
        return self.layout

    def set(self, state: RouterState) -> Applied:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        check_state(state, self.layout)
        if self.refuse_with is not None:
            raise DriverError(self.refuse_with)
        self.ensure_router()
        is_replaced = not self._is_known
        failures = {
            name: f"Devbox {name} got no link: refused."
            for name in state.devboxes
            if name in self.refuse_links and name not in self._state.devboxes
        }
        revoked = live_grants(self._state.plans.values()) - live_grants(state.plans.values())
        devboxes = {name: devbox for name, devbox in state.devboxes.items() if name not in failures}
        changed = {name for name, old in self._state.devboxes.items() if devboxes.get(name) != old}
        kept_links = {devbox.link for name, devbox in self._state.devboxes.items() if _is_in_place(devbox, devboxes)}
        self._pins = [pin for pin in self._pins if pin.link in kept_links]
        self.flows = [flow for flow in self.flows if flow.devbox_id not in changed]
        self._state = replace(state, devboxes=devboxes)
        self._is_known = True
        self._drift.clear()
        self.history.append(state)
        return Applied(revoked, failures, is_replaced)

    def abort_revoked(self, grants: Collection[int], devboxes: Collection[str]) -> int:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        doomed = [flow for flow in self.flows if flow.grant in grants and flow.devbox_id in devboxes]
        self.flows = [flow for flow in self.flows if flow not in doomed]
        return len(doomed)

    def observe_drift(self) -> tuple[str, ...]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        if self._drift:
            self._is_known = False
        return tuple(self._drift)

    def observe_obstacles(self) -> tuple[str, ...]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        return self.obstacles

    def observe_host_addresses(self) -> frozenset[IPAddress]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        return self.host_addresses

    def pins(self) -> tuple[Pin, ...]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        return tuple(self._pins)

    def denials(self) -> FakeDenials:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        self._denials = FakeDenials()
        return self._denials

    def flow_events(self) -> FakeFlowEvents:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        self._flow_events = FakeFlowEvents()
        return self._flow_events

    def denied_packets(self) -> Mapping[str, int]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        return dict(self._denied)

    def teardown(self) -> None:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        self.has_router, self._is_known, self._state = False, False, _EMPTY
        self.flows.clear()
        self._pins.clear()
        self._drift.clear()

    def open_flow(self, devbox_id: str, grant: int) -> None:
        """A devbox opens a TCP flow. Raises DriverError when the grant is not live or the devbox has no link."""
        if devbox_id not in self._state.devboxes or grant not in live_grants(self._state.plans.values()):
            raise DriverError(f"devbox {devbox_id} has no flow under grant {grant}.")
        self.flows.append(FakeFlow(devbox_id, grant))

    def add_pin(self, pin: Pin) -> None:
        """The gate adds a pin."""
        self._pins.append(pin)

    def deny(self, denial: Denial) -> None:
        """A packet is denied: counted, and told to the listener if there is one."""
        self._denied[denial.link] += 1
        if self._denials is not None:
            self._denials.put(denial)

    def tell_flows(self, *events: FlowEvent, dropped: int = 0) -> None:
        """Flows begin or end, and more of them are lost: told to the listener if there is one."""
        if self._flow_events is not None:
            self._flow_events.dropped += dropped
            self._flow_events.put(*events)

    def damage(self, sentence: str) -> None:
        """Something changes the kernel behind the driver's back."""
        self._drift.append(sentence)


def _is_in_place(old: DevboxLink, wanted: Mapping[str, DevboxLink]) -> bool:
    new = wanted.get(old.devbox_id)
    return new is not None and new.is_in_place_of(old)
