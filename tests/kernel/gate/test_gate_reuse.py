"""A devbox in the place of another (same link, same addresses, same ports): the gate hands nothing on."""

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import pytest
from msgspec import structs

from outgate.core.wildcard_budget import NAMES_PER_WILDCARD_MAX
from outgate.model.desired import GateApply, GateDevbox
from outgate.model.policy import NetworkPolicy
from support.gate_harness import devbox
from support.gate_world import GATEWAY4, GateWorld, gate_world
from support.policies import make_policy

pytestmark = pytest.mark.kernel

ADDRESS, PORT = "93.184.216.34", 40_053
FIRST = make_policy("example.com", "*.wild.example", policy_id="npol_1")
SAME = make_policy("example.com", "*.wild.example", policy_id="npol_2", number=17)
OTHER = make_policy("other.example", policy_id="npol_3", number=18)


@pytest.fixture
def world() -> Iterator[GateWorld]:
    with gate_world(devboxes=2) as made:
        for name in ("example.com", "other.example"):
            made.resolver.add(name, "A", ADDRESS)
        yield made


def begin(world: GateWorld) -> None:
    world.gate.apply_policies(FIRST, SAME, OTHER, devboxes=((1, "npol_1"), (2, "npol_2")))


def succeed(world: GateWorld, policy: NetworkPolicy) -> None:
    """The first devbox goes; another one, of another account, comes to its link and addresses."""
    gone = world.gate.apply(GateApply(revision=2, full=False, devboxes_removed=("dbx_1",)))
    came = world.gate.apply(GateApply(revision=3, full=False, devboxes=(next_devbox(policy),)))
    assert (gone.error, came.error) == (None, None)


def next_devbox(policy: NetworkPolicy) -> GateDevbox:
    return structs.replace(devbox(1, policy.id), id="dbx_next", account_id="acct_next")


def ask_from(world: GateWorld, name: str) -> dns.message.Message:
    """Asked from the same port each time, as a program that inherited the port would."""
    with world.socket_in(1, kind=socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        asking.bind(("", PORT))
        asking.connect((GATEWAY4, 53))
        query = dns.message.make_query(name, "A", id=7)
        asking.send(query.to_wire())
        return dns.message.from_wire(asking.recv(4096))


def test_what_one_devbox_looked_up_is_neither_answered_to_nor_open_for_the_next(world: GateWorld) -> None:
    """The very same datagram is answered by the next one's policy; neither a ready reply nor a pin is left."""
    begin(world)
    assert ask_from(world, "example.com").answer
    assert ask_from(world, "example.com").answer, "by now it is answered from what is ready"
    assert world.pinned() == {ADDRESS}
    succeed(world, OTHER)
    assert world.pinned() == set()
    assert ask_from(world, "example.com").rcode() == dns.rcode.NXDOMAIN
    assert world.pinned() == set()
    assert ask_from(world, "other.example").answer, "the control"
    assert world.pinned() == {ADDRESS}


def test_a_pin_is_the_devboxs_own_though_the_answer_is_shared(world: GateWorld) -> None:
    """One upstream question serves both; the second one's pin comes with its own lookup and not before."""
    begin(world)
    world.ask("example.com", number=1)
    assert (world.pinned(1), world.pinned(2)) == ({ADDRESS}, set())
    world.ask("example.com", number=2)
    assert (world.pinned(1), world.pinned(2)) == ({ADDRESS}, {ADDRESS})
    assert [name for name, _ in world.resolver.questions] == ["example.com"]


def test_a_lookup_under_way_teaches_the_next_devbox_nothing(world: GateWorld) -> None:
    """Its answer comes when the place has another devbox: nobody is told, nothing is pinned."""
    begin(world)
    asked, go_on = threading.Event(), threading.Event()

    def answer_late(_question: dns.message.Message, answer: dns.message.Message) -> list[bytes]:
        asked.set()
        go_on.wait(10)
        return [answer.to_wire()]

    world.resolver.behaviour = answer_late
    pending = world.send("example.com")
    assert asked.wait(10)
    succeed(world, SAME)
    world.resolver.behaviour = None
    go_on.set()
    assert world.ask("other.example", number=2).rcode() == dns.rcode.NXDOMAIN, "the gate has turned since"
    assert world.ask("example.com", number=2).answer, "and the late answer has arrived"
    assert world.pinned(1) == set()
    assert not pending.has_answer()
    assert not [record for record in world.gate.records if record.devbox_id == "dbx_next"]


def test_the_next_devbox_has_a_wildcard_budget_of_its_own(world: GateWorld) -> None:
    begin(world)
    for number in range(NAMES_PER_WILDCARD_MAX):
        world.ask(f"n{number}.wild.example")
    spent = world.resolver.names_asked()
    world.ask("one-more.wild.example")
    assert world.resolver.names_asked() == spent, "the first one has used its budget up"
    succeed(world, SAME)
    world.ask("one-more.wild.example")
    assert world.resolver.names_asked() == {*spent, "one-more.wild.example"}


def test_what_is_recorded_of_the_next_devbox_is_its_own(world: GateWorld) -> None:
    """The journal of lookups repeats nothing of the one before under the next one's name."""
    begin(world)
    world.ask("denied.example")
    succeed(world, OTHER)
    world.ask("denied.too.example")
    world.gate.wait_for_record(lambda record: record.name == "denied.too.example")
    names = {record.devbox_id: record.name for record in world.gate.records}
    assert names == {"dbx_1": "denied.example", "dbx_next": "denied.too.example"}
