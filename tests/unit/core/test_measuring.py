"""Counting: what falls into which bucket, and what a strange host cannot do to those who read it."""

import msgspec
import pytest

from outgate.core.measuring import OTHER_REASON, DecisionCounts, LatencyCounts, known_decisions
from outgate.model.measures import DECISION_KINDS_MAX, LATENCY_BOUNDS_S, HostMeasures, LatencyMeasure
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason, EnforcementPoint, ReportOnly, RuleRef
from support.measures import denial, gate_measures, host_measures

DENY = Deny(DenyReason.NO_RULE, "No rule.")


def test_each_observation_falls_into_the_first_bucket_that_is_not_below_it() -> None:
    counts = LatencyCounts()
    for bound_s in LATENCY_BOUNDS_S:
        counts.observe(bound_s)
    counts.observe(1e9)
    assert counts.measure().counts == (1,) * (len(LATENCY_BOUNDS_S) + 1)
    counts.observe(0, times=64)
    counts.observe(LATENCY_BOUNDS_S[0] * 1.01)
    assert counts.measure().counts[:3] == (65, 2, 1)


def test_the_sum_is_that_of_all() -> None:
    counts = LatencyCounts()
    counts.observe(0.5)
    counts.observe(0.25, times=4)
    assert counts.measure().sum_s == pytest.approx(1.5)


def test_decisions_count_by_place_verdict_and_reason() -> None:
    counts = DecisionCounts()
    for _ in range(3):
        counts.decided(EnforcementPoint.DNS, DENY)
    counts.decided(EnforcementPoint.RELAY, DENY)
    counts.decided(EnforcementPoint.RELAY, Allow(AllowReason.HOSTNAME, RuleRef("allowed_hostnames"), "Fine."))
    counts.decided(EnforcementPoint.RELAY, ReportOnly(DENY, RuleRef("enforcement")))
    assert known_decisions(counts.measure()) == {
        ("dns", "deny", "no_rule"): 3,
        ("relay", "deny", "no_rule"): 1,
        ("relay", "allow", "hostname"): 1,
        ("relay", "report_only", "no_rule"): 1,
    }


def test_kinds_of_decisions_are_bounded() -> None:
    counts = DecisionCounts()
    for number in range(DECISION_KINDS_MAX * 2):
        counts.add(EnforcementPoint.DNS, "deny", f"reason {number}", 1)
    counts.add(EnforcementPoint.DNS, "deny", "reason 0", 1)
    measured = counts.measure()
    assert len(measured) == DECISION_KINDS_MAX
    assert measured[0].count == 2


def test_strange_reasons_count_as_one_and_strange_verdicts_not_at_all() -> None:
    told = tuple(denial(f"reason {number}") for number in range(100))
    assert known_decisions((*told, denial("no_rule"), denial(verdict="perhaps"))) == {
        ("dns", "deny", OTHER_REASON): 100,
        ("dns", "deny", "no_rule"): 1,
    }


def _encoded(**changes: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(host_measures(gate=gate_measures())) | changes)


def test_measures_arrive_as_they_were_sent() -> None:
    measures = host_measures(denial(count=7), gate=gate_measures(denial()))
    assert msgspec.json.decode(msgspec.json.encode(measures), type=HostMeasures) == measures


@pytest.mark.parametrize(
    "content",
    [
        _encoded(number=-1),
        _encoded(number=2**60),
        _encoded(boot_id="x" * 65),
        _encoded(strange=1),
        _encoded(agent={}),
        _encoded(gate={"type": "records"}),
    ],
)
def test_measures_that_are_none_are_refused(content: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(content, type=HostMeasures)


@pytest.mark.parametrize("counts", [(), (1,) * 16, (1,) * 18, (-1,) * 17, (0.5,) * 17])
def test_histograms_of_another_shape_are_refused(counts: tuple[float, ...]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"counts": counts, "sum_s": 0.0}), type=LatencyMeasure)
