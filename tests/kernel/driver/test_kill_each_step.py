"""A driver that dies after any step of any apply: closed meanwhile, and the same in the end as if it had not died."""

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from outgate.dataplane import netns
from outgate.dataplane.apply_steps import ApplyStep
from outgate.dataplane.driver import RouterState
from outgate.dataplane.linux import LinuxDriver
from outgate.model.addresses import Protocol
from outgate.model.plan import PolicyPlan, grant_of_allow_all
from support.driver_world import ALLOWED4, OTHER4, PRIVATE4, Tap, World, cidr_plan, everything_plan
from support.kernel_text import observe_everything

pytestmark = [
    pytest.mark.kernel,
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

BOTH4 = "45.45.46.2"
"""What the devbox may reach before and after (the applies that keep it running)."""
METADATA4 = "169.254.169.254"
LAST4 = "45.45.46.200"
"""Nobody is there, but the way leads past the tap: marks the end of the probes."""
NOBODYS = cidr_plan(17, ("45.45.46.0/24", 30, None, 1, 65535))
"""Another policy, of a devbox that no apply touches."""
BOTH = (f"{BOTH4}/32", 20, None, 1, 65535)
WIDE, NARROW = cidr_plan(16, BOTH, (f"{ALLOWED4}/32", 21, None, 1, 65535)), cidr_plan(16, BOTH)
PORT_PROBE = 9100


class KilledError(BaseException):
    """The process is gone: nothing of it is cleaned up, and nothing catches it."""


@dataclass(frozen=True)
class Apply:
    """One kind of apply. ``denied`` are addresses that both sides deny to the devbox in slot 0."""

    before: Callable[[World], RouterState]
    after: Callable[[World], RouterState]
    steps: tuple[ApplyStep, ...]
    denied: tuple[str, ...] = (OTHER4, METADATA4)
    kept: bool = True
    """Whether the devbox lives before and after, and may reach BOTH4 all the time."""
    lost: bool = True
    """Whether ALLOWED4 is open before and not after."""


def boxes(*plans: PolicyPlan, **policies: int) -> Callable[[World], RouterState]:
    places = {int(name.removeprefix("box")): number for name, number in policies.items()}
    return lambda world: world.state(*plans, NOBODYS, boxes={1: 17, **places})


S = ApplyStep
REMOVAL = (S.LINKS_REMOVED, S.PINS_FORGOTTEN, S.FLOWS_FORGOTTEN)
MADE = (S.PLACES_CLEARED, S.LINK_MADE, S.DEVBOXES_OPENED)
SAME_NUMBER_ELSEWHERE = cidr_plan(18, BOTH, (f"{ALLOWED4}/32", 22, None, 1, 65535))

APPLIES = {
    "a devbox starts": Apply(
        boxes(), boxes(WIDE, box0=16), (S.POLICIES_ADDED, S.ELEMENTS_CHANGED, *MADE), kept=False, lost=False
    ),
    "a devbox ends": Apply(
        boxes(WIDE, box0=16), boxes(), (S.ELEMENTS_CHANGED, *REMOVAL, S.POLICIES_REMOVED), kept=False
    ),
    "an update loosens": Apply(boxes(NARROW, box0=16), boxes(WIDE, box0=16), (S.ELEMENTS_CHANGED,), lost=False),
    "an update tightens": Apply(boxes(WIDE, box0=16), boxes(NARROW, box0=16), (S.ELEMENTS_CHANGED,)),
    "an update replaces": Apply(
        boxes(WIDE, box0=16),
        boxes(cidr_plan(16, BOTH, (f"{PRIVATE4}/32", 23, Protocol.UDP, 1, 65535)), box0=16),
        (S.ELEMENTS_CHANGED,),
    ),
    "allow_all becomes narrower": Apply(
        boxes(everything_plan(16), box0=16), boxes(NARROW, box0=16), (S.ELEMENTS_CHANGED,), (METADATA4,), kept=False
    ),
    "a devbox moves to another policy": Apply(
        boxes(WIDE, SAME_NUMBER_ELSEWHERE, box0=18, box2=18),
        boxes(NARROW, SAME_NUMBER_ELSEWHERE, box0=16, box2=18),
        (S.ELEMENTS_CHANGED, S.MOVED_OPENED, S.FLOWS_FORGOTTEN),
        kept=False,
    ),
    "a slot gets another devbox": Apply(
        boxes(WIDE, box0=16),
        lambda world: _renamed(boxes(NARROW, box0=16)(world)),
        (S.ELEMENTS_CHANGED, *REMOVAL, *MADE),
        kept=False,
    ),
}


def _renamed(state: RouterState) -> RouterState:
    link = state.devboxes["dbx_0"]
    successor = type(link)(link.slot, link.link, "dbx_next", link.address4, link.address6, link.policy_number)
    others = {name: devbox for name, devbox in state.devboxes.items() if name != "dbx_0"}
    return RouterState(state.plans, {**others, "dbx_next": successor}, state.host_addresses)


@dataclass
class Witness:
    """Tries at each step what must never pass, and what must always; dies at the step it is told to."""

    world: World
    denied: tuple[str, ...]
    die_at: int | None = None
    seen: list[ApplyStep] = field(default_factory=list)

    def __call__(self, step: ApplyStep) -> None:
        self.seen.append(step)
        self.probe()
        if len(self.seen) - 1 == self.die_at:
            raise KilledError

    def probe(self) -> None:
        """Knock from the devbox's place at everything that is denied to it; the tap sees what passes."""
        if netns.has_namespace(self.world.box(0)):
            for address in (*self.denied, str(self.world.layout.address4(1))):
                for protocol in (Protocol.UDP, Protocol.TCP):
                    send(self.world, 0, address, protocol)
        send(self.world, 1, ALLOWED4, Protocol.UDP)  # the control: one that may


def send(world: World, slot: int, address: str, protocol: Protocol) -> None:
    """One datagram or one SYN, and no waiting."""
    kind = socket.SOCK_DGRAM if protocol is Protocol.UDP else socket.SOCK_STREAM
    with netns.entered(world.box(slot)), socket.socket(socket.AF_INET, kind) as sender:
        sender.setblocking(False)
        with contextlib.suppress(OSError):  # no link yet, refused at once, or under way
            sender.connect((address, PORT_PROBE))
            sender.send(b"probe")


def destinations(world: World, tap: Tap) -> set[str]:
    """Where the probes came that were sent so far, the control of the last one included."""
    send(world, 1, LAST4, Protocol.UDP)
    found: set[str] = set()
    while LAST4 not in found:
        packets = tap.packets(is_probe, settle_s=0.02)
        found |= {socket.inet_ntoa(packet[16:20]) for packet in packets}
    return found - {LAST4}


def is_probe(packet: bytes) -> bool:
    return packet[0] >> 4 == 4 and packet[22:24] == PORT_PROBE.to_bytes(2, "big")


def flow(world: World, slot: int, address: str) -> tuple[socket.socket, socket.socket]:
    with world.far.listen(address) as server:
        client = world.connect(slot, address)
        accepted, _ = server.accept()
    accepted.settimeout(0.3)
    return client, accepted


def passes(client: socket.socket, accepted: socket.socket) -> bool:
    try:
        client.sendall(b"still here")
        return accepted.recv(100) == b"still here"
    except OSError:
        return False


def has_gone(client: socket.socket, accepted: socket.socket) -> bool:
    """Nothing that is sent arrives any more; what arrived before is read first."""
    with contextlib.suppress(OSError):
        client.sendall(b"too late")
    try:
        return b"too late" not in accepted.recv(1000)
    except OSError:
        return True


@pytest.mark.parametrize("kind", APPLIES)
@pytest.mark.parametrize("path", ["update", pytest.param("replacement", marks=pytest.mark.slow)])
def test_a_driver_that_dies_after_any_step_opens_nothing_and_the_next_one_ends_in_the_same_state(
    world: World, kind: str, path: str
) -> None:
    """Verdict: what both states deny never passes. Recovery: the next driver's first ``set``."""
    apply = APPLIES[kind]
    witness = Witness(world, apply.denied)
    begin(world, apply, path, witness).set(apply.after(world))
    expected, steps = observe_everything(world.layout), tuple(witness.seen)
    if path == "update":
        assert steps == apply.steps
    assert steps
    for number in range(len(steps)):
        die_and_recover(world, apply, path, number, expected)


def begin(world: World, apply: Apply, path: str, witness: Witness) -> LinuxDriver:
    """A driver about to leave ``before``: one that knows the kernel, or one that has to write everything."""
    driver = world.driver(on_step=lambda step: witness(step) if witness.denied else None)
    quiet, witness.denied = witness.denied, ()
    if path == "update":
        driver.set(apply.before(world))
    else:
        world.driver().set(apply.before(world))
    witness.denied = quiet
    return driver


def die_and_recover(world: World, apply: Apply, path: str, number: int, expected: list[str]) -> None:
    witness = Witness(world, apply.denied, die_at=number)
    driver = begin(world, apply, path, witness)
    kept = flow(world, 0, BOTH4) if apply.kept else None
    lost = flow(world, 0, ALLOWED4) if apply.lost else None
    with world.far.tap() as tap:
        with pytest.raises(KilledError):
            driver.set(apply.after(world))
        where = f"died after {witness.seen[-1].name}"
        assert destinations(world, tap) == {ALLOWED4}, where
        successor = world.driver(on_step=Witness(world, apply.denied))
        applied = successor.set(apply.after(world))
        successor.abort_revoked(applied.revoked_grants, {"dbx_0"})
        assert destinations(world, tap) == {ALLOWED4}, where
    assert observe_everything(world.layout) == expected, where
    assert successor.observe_drift() == (), where
    assert kept is None or passes(*kept), where
    assert lost is None or has_gone(*lost), where
    # Nor does a flow of that name live on for the one who comes to the place after it.
    for end in (*(kept or ()), *(lost or ())):
        end.close()


def test_plans_of_the_applies_differ_as_they_say() -> None:
    """The table above is what the test stands on: the grants are disjoint where a right is lost."""
    assert NARROW.live < WIDE.live
    assert grant_of_allow_all(16) not in NARROW.live
