"""Records: sent in batches, bounded, and no devbox crowds out another."""

from outgate.dataplane.loop import Loop
from outgate.dataplane.records import Recorder, decision_record
from outgate.model.desired import FlowRecord, GateRecords
from outgate.model.verdict import Deny, DenyReason, EnforcementPoint, ReportOnly, RuleRef
from support.gate_harness import FakeClock, Harness
from support.policies import make_policy


class Agent:
    def __init__(self) -> None:
        self.batches: list[GateRecords] = []
        self.is_reading = True

    def take(self, batch: GateRecords) -> bool:
        if self.is_reading:
            self.batches.append(batch)
        return self.is_reading

    @property
    def records(self) -> list[FlowRecord]:
        return [record for batch in self.batches for record in batch.records]


def make_record(devbox_id: str = "dbx_1") -> FlowRecord:
    return FlowRecord(
        time_ms=1, devbox_id=devbox_id, policy_id="npol_1", revision=1, verdict="deny", reason="no_rule", point="dns"
    )


def run(loop: Loop, clock: FakeClock, turns: int = 1) -> None:
    for _ in range(turns):
        clock.now_s += 0.1
        loop.run_once(0)


def test_records_go_out_in_batches_a_moment_later() -> None:
    clock, agent = FakeClock(), Agent()
    loop = Loop(monotonic_s=clock)
    recorder = Recorder(loop, agent.take)
    for _ in range(300):
        recorder.record(make_record())
    assert agent.batches == []
    run(loop, clock, 3)
    assert [len(batch.records) for batch in agent.batches] == [256, 44]


def test_one_devbox_cannot_take_the_room_of_another() -> None:
    clock, agent = FakeClock(), Agent()
    loop = Loop(monotonic_s=clock)
    recorder = Recorder(loop, agent.take)
    for _ in range(5000):
        recorder.record(make_record("dbx_loud"))
    recorder.record(make_record("dbx_quiet"))
    run(loop, clock, 10)
    assert [record.devbox_id for record in agent.records].count("dbx_quiet") == 1
    assert len(agent.records) == 1025
    assert sum(batch.dropped for batch in agent.batches) == 5000 - 1024


def test_an_agent_that_does_not_read_costs_records_and_not_memory() -> None:
    clock, agent = FakeClock(), Agent()
    agent.is_reading = False
    loop = Loop(monotonic_s=clock)
    recorder = Recorder(loop, agent.take)
    for i in range(20_000):
        recorder.record(make_record(f"dbx_{i % 50}"))
        if i % 1000 == 0:
            run(loop, clock)
    assert len(recorder._queue) == 8192
    agent.is_reading = True
    run(loop, clock, 40)
    assert len(agent.records) == 8192
    assert sum(batch.dropped for batch in agent.batches) == 20_000 - 8192


def test_a_record_says_who_what_and_why() -> None:
    entry = Harness(make_policy("example.com")).entry()
    deny = Deny(DenyReason.NO_RULE, "Because.", RuleRef("allowed_cidrs", 2, "10.0.0.0/8"))
    record = decision_record(entry, deny, EnforcementPoint.RELAY, name="a.example", address="192.0.2.1", port=443)
    assert (record.verdict, record.reason, record.sentence) == ("deny", "no_rule", "Because.")
    assert (record.rule, record.point, record.port) == ("allowed_cidrs[2] 10.0.0.0/8", "relay", 443)
    assert (record.devbox_id, record.policy_id, record.revision) == ("dbx_1", "npol_1", 1)
    report = decision_record(entry, ReportOnly(deny, RuleRef("enforcement")), EnforcementPoint.DNS)
    assert (report.verdict, report.reason) == ("report_only", "no_rule")
