"""The gate when its upstream resolver fails: nothing is taught, and it recovers by itself."""

import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import pytest

from support.gate_world import GateWorld, gate_world
from support.policies import make_policy

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

ADDRESS = "93.184.216.34"


@pytest.fixture
def world() -> Iterator[GateWorld]:
    with gate_world() as made:
        for name in ("example.com", "late.example.com", "back.example.com"):
            made.resolver.add(name, "A", ADDRESS)
        made.gate.apply_policies(make_policy("example.com", "*.example.com"))
        yield made


def test_a_resolver_that_says_nothing_teaches_nothing_and_may_come_back(world: GateWorld) -> None:
    """upstream DNS, gone and restarted. Verdict: SERVFAIL and no pin. Recovery: the next lookup that is answered."""
    world.resolver.behaviour = lambda _question, _answer: []
    asked = world.send("example.com")
    asked._socket.settimeout(30)
    assert asked.wait().rcode() == dns.rcode.SERVFAIL
    assert world.pinned() == set()
    world.resolver.behaviour = None
    assert world.ask("back.example.com").answer
    assert world.pinned() == {ADDRESS}


def test_a_resolver_that_is_late_holds_up_only_what_it_was_asked(world: GateWorld) -> None:
    """upstream DNS, slow. Verdict: pinned when the answer comes and not before; denials do not wait."""
    go_on = threading.Event()

    def answer_late(question: dns.message.Message, answer: dns.message.Message) -> list[bytes]:
        del question
        go_on.wait(5)
        return [answer.to_wire()]

    world.resolver.behaviour = answer_late
    late = world.send("late.example.com")
    assert world.ask("denied.example").rcode() == dns.rcode.NXDOMAIN
    assert world.pinned() == set()
    go_on.set()
    assert late.wait().answer
    assert world.pinned() == {ADDRESS}
