"""What the agent says to the kernel, and how it is answered: desired state, not steps.

``set`` may be called again with the same state, from any leftover state, by a driver that was started a
moment ago; ``teardown`` needs no state at all. :class:`~outgate.dataplane.linux.LinuxDriver` is the real
one, :class:`~outgate.dataplane.fake.FakeDriver` keeps the same promises in memory; one set of contract
tests runs against both.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from outgate.dataplane.conntrack_events import FlowEvent
from outgate.dataplane.layout import NetworkLayout
from outgate.dataplane.pin_elements import Pin
from outgate.errors import InvalidValueError, OutgateError
from outgate.model.addresses import IPAddress
from outgate.model.plan import PolicyPlan

FLOWS_PER_DEVBOX_MAX = 4096
"""Default bound on a devbox's tracked flows: 64 devboxes at their bound fill the kernel's usual 262,144."""


class DriverError(OutgateError):
    """The kernel could not be brought to the wanted state; what was in force before still is, or less."""

    code = "driver"


@dataclass(frozen=True, slots=True)
class DevboxLink:
    """One devbox's place in the network. ``link`` and the addresses are those of the layout for ``slot``."""

    slot: int
    link: str
    devbox_id: str
    address4: IPv4Address
    address6: IPv6Address | None
    policy_number: int

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """One or two."""
        return (self.address4,) if self.address6 is None else (self.address4, self.address6)

    def is_in_place_of(self, other: "DevboxLink") -> bool:
        """Whether this is the same devbox in the same place, maybe under another policy."""
        return self is other or (
            (self.slot, self.devbox_id, self.address4, self.address6)
            == (other.slot, other.devbox_id, other.address4, other.address6)
        )


def link_devbox(layout: NetworkLayout, slot: int, devbox_id: str, policy_number: int) -> DevboxLink:
    """The link of a devbox that was given ``slot``."""
    return DevboxLink(slot, layout.link(slot), devbox_id, layout.address4(slot), layout.address6(slot), policy_number)


@dataclass(frozen=True, slots=True)
class RouterState:
    """Everything the kernel enforces: plans by policy number, devboxes by id, the host's own addresses."""

    plans: Mapping[int, PolicyPlan] = field(default_factory=dict)
    devboxes: Mapping[str, DevboxLink] = field(default_factory=dict)
    host_addresses: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class Applied:
    """What ``set`` did.

    ``revoked_grants`` were live and are not any more: their flows are dead already, and
    ``abort_revoked`` tells their programs. ``failures`` are devboxes that could not be given a link, with a
    sentence each; they are closed, and the next ``set`` tries again. ``is_replaced``: the whole table was
    written anew; pins were carried over, but a gate that added some meanwhile must write its own again.
    """

    revoked_grants: frozenset[int] = frozenset()
    failures: Mapping[str, str] = field(default_factory=dict)
    is_replaced: bool = False


@dataclass(frozen=True, slots=True)
class Denial:
    """One packet that was denied (a sample: each devbox has a limit on what is logged).

    ``is_over_limit``: a rule allows it, but the devbox holds as many flows as it may.
    """

    link: str
    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int | None
    destination_port: int | None
    is_over_limit: bool = False


class Denials(Protocol):
    """Denied packets as they come."""

    @property
    def lost(self) -> int:
        """How often denials did not fit the kernel's buffer, so far."""
        ...

    def fileno(self) -> int:
        """A descriptor that becomes readable when there are some."""
        ...

    def read(self) -> tuple[Denial, ...]:
        """Those that are there now; empty when there are none. Never blocks."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class FlowEvents(Protocol):
    """Flows that begin and end under a grant, as they do."""

    events: int
    """Those that were read so far."""
    dropped: int
    """Those that were lost so far, as far as that is known."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when there are some."""
        ...

    def read(self) -> tuple[tuple[FlowEvent, ...], bool]:
        """A bounded number of those that are there now, and whether there may be more. Never blocks."""
        ...

    def close(self) -> None:
        """Stop listening. May be called twice."""
        ...


class Driver(Protocol):
    """The kernel of one host, as far as one instance owns it. For use by one thread at a time."""

    def ensure_router(self) -> NetworkLayout:
        """Make the router namespace, the uplink and what belongs to them; adopt what is there.

        Nothing is open afterwards that was not open before. Raises :class:`DriverError`.
        """
        ...

    def set(self, state: RouterState) -> Applied:
        """Bring the kernel to ``state``. When it returns, ``state`` is in force for every packet.

        Nothing is allowed at any moment that both the old and the new state deny; a new devbox is closed
        until everything about it is in place. Raises InvalidValueError for a state that makes no sense
        and :class:`DriverError` when the kernel refuses; the old state is in force then.
        """
        ...

    def abort_revoked(self, grants: Collection[int], devboxes: Collection[str]) -> int:
        """Destroy the sockets, in these devboxes, of TCP flows that carry one of ``grants`` and lost their rule.

        The programs notice at once, and one reset reaches each far side. Flows that another rule still
        allows are left alone. Returns the number of sockets destroyed. The one method that another thread may
        call meanwhile.
        """
        ...

    def observe_drift(self) -> tuple[str, ...]:
        """How the kernel differs from what was set, a sentence each; the next ``set`` repairs it."""
        ...

    def observe_obstacles(self) -> tuple[str, ...]:
        """What keeps allowed traffic from leaving the host and is not Outgate's to change, a sentence each."""
        ...

    def observe_host_addresses(self) -> frozenset[IPAddress]:
        """The host's own addresses, as they belong into :class:`RouterState`."""
        ...

    def pins(self) -> tuple[Pin, ...]:
        """Every pin in the kernel."""
        ...

    def denials(self) -> Denials:
        """Begin to listen for denied packets. One listener at a time."""
        ...

    def flow_events(self) -> FlowEvents:
        """Begin to listen for flows under a grant that begin and end."""
        ...

    def denied_packets(self) -> Mapping[str, int]:
        """Denied packets per link since the table was last written anew."""
        ...

    def teardown(self) -> None:
        """Remove everything of this instance. Works without state and may be called twice."""
        ...


def check_state(state: RouterState, layout: NetworkLayout, known: RouterState | None = None) -> None:
    """Raise InvalidValueError if ``state`` cannot be enforced as a whole on ``layout``.

    What is in ``known`` was checked before and is not worked out again.
    """
    slots: dict[int, str] = {}
    checked = {} if known is None else known.devboxes
    for devbox_id, devbox in state.devboxes.items():
        if devbox.devbox_id != devbox_id:
            raise InvalidValueError(f"devbox {devbox.devbox_id} is listed as {devbox_id}.")
        other = slots.setdefault(devbox.slot, devbox_id)
        if other != devbox_id:
            raise InvalidValueError(f"slot {devbox.slot} was given to {other} and to {devbox_id}.")
        if devbox.policy_number not in state.plans:
            raise InvalidValueError(f"devbox {devbox_id} has the unknown policy number {devbox.policy_number}.")
        if checked.get(devbox_id) == devbox:
            continue
        if not 0 <= devbox.slot < layout.slots_max:
            raise InvalidValueError(f"devbox {devbox_id} has slot {devbox.slot}; there are {layout.slots_max}.")
        if devbox != link_devbox(layout, devbox.slot, devbox_id, devbox.policy_number):
            raise InvalidValueError(f"devbox {devbox_id} has other names or addresses than slot {devbox.slot}.")
    for number, plan in state.plans.items():
        if plan.number != number:
            raise InvalidValueError(f"the plan of policy {plan.number} is listed as {number}.")
