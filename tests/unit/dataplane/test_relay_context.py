"""What connections share: due queues, limits, remembered verdicts."""

from ipaddress import ip_address

import pytest

from outgate.core.decide import prepare_policy
from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.relay_context import DueQueue, limits_for_descriptors
from outgate.dataplane.relay_verdicts import VerdictCache
from outgate.model.flow import HostContext, TlsHello
from outgate.model.names import DomainName, parse_host_pattern
from outgate.model.policy import EgressRules, NetworkPolicy
from outgate.model.verdict import Allow, Deny

A = DomainName("a.test")


def test_things_come_due_in_order_and_once() -> None:
    queue: DueQueue[str] = DueQueue(10.0)
    queue.put("first", 100.0)
    queue.put("second", 105.0)
    queue.put("gone", 105.0)
    queue.put("first", 109.0)  # keeps its time
    queue.discard("gone")
    queue.discard("never there")
    assert list(queue.take_due(109.9)) == []
    assert list(queue.take_due(110.0)) == ["first"]
    assert list(queue.take_due(1000.0)) == ["second"]
    assert len(queue) == 0


def test_what_is_discarded_while_others_come_due_does_not() -> None:
    queue: DueQueue[str] = DueQueue(1.0)
    for item in "abc":
        queue.put(item, 0.0)
    seen = []
    for item in queue.take_due(5.0):
        seen.append(item)
        queue.discard("b")
    assert seen == ["a", "c"]


@pytest.mark.parametrize(("descriptors", "flows"), [(20_000, 9_488), (1024, 1)])
def test_limits_leave_descriptors_for_the_rest(descriptors: int, flows: int) -> None:
    limits = limits_for_descriptors(descriptors, 16_384)
    assert (limits.flows, limits.flows_per_devbox) == (flows, 16_384)


def entry(*patterns: str) -> DevboxEntry:
    context = HostContext()
    rules = EgressRules(allowed_hostnames=tuple(parse_host_pattern(pattern) for pattern in patterns))
    policy = prepare_policy(NetworkPolicy("npol_1", "p", 16, 1, rules), context)
    return DevboxEntry("dbx_1", "acc", "og1", "npol_1", ("10.213.0.2",), policy, context, GateTable(context).pins)


def test_a_remembered_verdict_is_never_another_policys() -> None:
    cache, address = VerdictCache(), ip_address("45.11.7.10")
    for _ in range(50):  # policies come and go, and their identities are used again
        assert isinstance(cache.judge(entry("a.test"), address, 443, TlsHello(A), (A,)), Allow)
        assert isinstance(cache.judge(entry("b.test"), address, 443, TlsHello(A), (A,)), Deny)
        assert cache.may_dial(entry("a.test"), A, address, 443) is None
        assert cache.may_dial(entry("b.test"), A, address, 443) is not None


def test_what_was_taught_is_part_of_the_question() -> None:
    cache, address, box = VerdictCache(), ip_address("45.11.7.10"), entry("a.test")
    assert isinstance(cache.judge(box, address, 443, TlsHello(A), (A,)), Allow)
    assert isinstance(cache.judge(box, address, 443, TlsHello(A), ()), Deny)
