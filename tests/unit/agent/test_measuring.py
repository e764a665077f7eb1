"""The agent's measures: what it counts, what it hands on of the gate's, and to whom."""

import asyncio

import pytest

from outgate.agent import measuring
from outgate.agent.flowlog import FlowLog
from outgate.agent.measuring import AgentCounts, HostMeter
from outgate.client.transport import PeerUnreachableError
from outgate.core.measuring import known_decisions
from outgate.model.desired import FlowBatch, FlowRecord
from outgate.model.measures import HostMeasures
from support.measures import denial, gate_measures


class Api:
    """Takes every second word."""

    def __init__(self) -> None:
        self.heard: list[HostMeasures] = []
        self.asked = 0
        self.is_done = asyncio.Event()

    async def store_measures(self, measures: HostMeasures) -> None:
        self.asked += 1
        if self.asked % 2:
            raise PeerUnreachableError("not now")
        self.heard.append(measures)
        if len(self.heard) == 3:
            self.is_done.set()

    async def store_flows(self, batch: FlowBatch) -> None:
        raise AssertionError(f"nothing is sent here: {batch}")


def make_record(point: str, *, bytes_out: int | None = None, count: int = 1) -> FlowRecord:
    return FlowRecord(1, "dbx_1", "npol_1", 1, "deny", "no_rule", point, count=count, bytes_out=bytes_out)


def test_decisions_of_the_kernel_count_and_those_of_the_gate_and_finished_flows_do_not() -> None:
    async def work() -> HostMeasures:
        flows = FlowLog(Api(), "boot")
        flows.add([make_record("kernel", count=3), make_record("kernel", bytes_out=5), make_record("dns")], dropped=4)
        counts = AgentCounts(gate_records_dropped=1)
        return HostMeter(counts, flows, "boot", None).measure()

    agent = asyncio.run(work()).agent
    assert known_decisions(agent.decisions) == {("kernel", "deny", "no_rule"): 3}
    assert (agent.kernel_records_dropped, agent.records_dropped, agent.records_queued) == (3, 0, 3)


def test_what_an_api_does_not_take_is_said_again_with_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "SEND_INTERVAL_S", 0)
    api = Api()

    async def work() -> None:
        meter = HostMeter(AgentCounts(), FlowLog(api, "boot"), "boot", api)
        meter.gate = gate_measures(denial(count=2))
        sending = asyncio.ensure_future(meter.run())
        await api.is_done.wait()
        sending.cancel()

    asyncio.run(asyncio.wait_for(work(), 30))
    assert [measures.number for measures in api.heard[:3]] == [2, 4, 6]
    assert api.heard[0].gate == gate_measures(denial(count=2))
    assert {measures.boot_id for measures in api.heard} == {"boot"}
