"""What the gate counts of lookups, and tells its agent."""

import socket

import pytest

from outgate.core.measuring import known_decisions
from outgate.dataplane.gate_control import FrameStream, GateControl, decode_from_gate
from outgate.dataplane.gate_measures import MEASURE_INTERVAL_S, GateMeter
from outgate.dataplane.loop import Loop
from outgate.model.desired import GateApplied
from outgate.model.measures import GateMeasures
from support.gate_harness import Harness
from support.measures import gate_measures
from support.policies import make_policy


def make_meter(harness: Harness) -> tuple[GateMeter, list[GateMeasures]]:
    sent: list[GateMeasures] = []
    meter = GateMeter(
        loop=harness.loop,
        table=harness.table,
        recorder=harness.recorder,
        dns=harness.gate,
        count_flows=lambda: 7,
        latencies=harness.latencies,
        send=sent.append,
    )
    return meter, sent


def test_lookups_count_by_where_their_answer_came_from_and_how_long_it_took() -> None:
    harness = Harness(make_policy("a.example"))
    meter, _ = make_meter(harness)
    for _ in range(2):
        harness.ask("denied.example")
    harness.ask("a.example")
    assert meter.measure().lookups_open == 1
    harness.wait(0.3)
    harness.answer("93.184.216.1")
    harness.ask("a.example")
    measured = meter.measure()
    assert (sum(measured.dns_denied.counts), measured.dns_denied.sum_s) == (2, 0)
    assert sum(measured.dns_forwarded.counts) == 1
    assert measured.dns_forwarded.sum_s == pytest.approx(0.3)
    assert sum(measured.dns_cached.counts) == 1
    assert (measured.lookups_open, measured.pins, measured.devboxes, measured.flows_open) == (0, 1, 1, 7)


def test_decisions_count_also_where_the_log_tells_them_as_one() -> None:
    harness = Harness(make_policy("a.example"))
    for _ in range(5):
        harness.ask("denied.example")
        harness.wait(0.1)
    assert len(harness.records) == 1
    meter, _ = make_meter(harness)
    assert known_decisions(meter.measure().decisions) == {("dns", "deny", "name_not_allowed"): 5}


def test_measures_go_out_at_once_and_then_every_few_seconds() -> None:
    harness = Harness(make_policy("a.example"))
    meter, sent = make_meter(harness)
    meter.start()
    assert len(sent) == 1
    harness.wait(MEASURE_INTERVAL_S / 2)
    assert len(sent) == 1
    harness.wait(MEASURE_INTERVAL_S / 2)
    harness.wait(MEASURE_INTERVAL_S)
    assert len(sent) == 3


def test_measures_pass_the_control_socket_and_wait_for_no_agent_that_does_not_read() -> None:
    agent, ours = socket.socketpair()
    with agent, ours:
        loop = Loop()
        control = GateControl(loop, ours, lambda update: GateApplied(update.revision), lambda _why: None)
        measures = gate_measures()
        control.send_measures(measures)
        loop.run_once(0)
        (content,) = FrameStream().receive(agent.recv(1 << 16))
        assert decode_from_gate(content) == measures
        for _ in range(20_000):
            control.send_measures(measures)
        size = len(content) + 4
        # What the kernel holds, and the bound on what waits for it.
        assert len(control._unsent) < (1 << 20) + 2 * size
        loop.close()
