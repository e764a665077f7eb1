"""Records on their way to the api: gathered, bounded, sent once."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from outgate.agent import flowlog
from outgate.agent.flowlog import FlowLog
from outgate.client.transport import PeerRefusedError, PeerUnreachableError
from outgate.model.desired import FlowBatch, FlowRecord
from support.sim_time import run_simulated


@dataclass
class FakeSink:
    """Keeps batches; fails with each of ``failures`` first."""

    batches: list[FlowBatch] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)

    async def store_flows(self, batch: FlowBatch) -> None:
        await asyncio.sleep(0)
        self.offered.append(batch.number)
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(batch)

    @property
    def records(self) -> list[FlowRecord]:
        return [record for batch in self.batches for record in batch.records]


def make_record(time_ms: int, devbox_id: str = "a", name: str = "x.org", size: int | None = None) -> FlowRecord:
    return FlowRecord(
        time_ms,
        devbox_id,
        "npol_1",
        1,
        "allow",
        "hostname",
        "relay",
        name=name,
        bytes_out=size,
        bytes_in=size,
        duration_ms=size,
    )


def sending(work: Callable[[FlowLog], Awaitable[None]], sink: FakeSink) -> None:
    async def scenario() -> None:
        log = FlowLog(sink, "boot")
        task = asyncio.ensure_future(log.run())
        await work(log)
        await asyncio.sleep(60)
        task.cancel()

    run_simulated(scenario())


def test_repeats_are_told_as_one_with_their_number_and_their_sums() -> None:
    sink = FakeSink()

    async def work(log: FlowLog) -> None:
        await asyncio.sleep(0)
        log.add([make_record(1), make_record(2, name="y.org"), make_record(3)])
        log.add([make_record(4, size=10), make_record(5, size=5), make_record(6)])

    sending(work, sink)
    told = {(r.name, r.bytes_out): (r.began_ms, r.time_ms, r.count, r.duration_ms) for r in sink.records}
    assert told == {("x.org", None): (1, 6, 3, None), ("y.org", None): (None, 2, 1, None), ("x.org", 15): (4, 5, 2, 15)}


def test_what_comes_later_goes_with_the_next_batch() -> None:
    sink = FakeSink()

    async def work(log: FlowLog) -> None:
        log.add([make_record(1)])
        await asyncio.sleep(5)
        log.add([make_record(2)])

    sending(work, sink)
    assert [(batch.boot_id, batch.number, len(batch.records)) for batch in sink.batches] == [
        ("boot", 1, 1),
        ("boot", 2, 1),
    ]


def test_a_batch_that_may_not_have_arrived_is_sent_again_under_its_number() -> None:
    sink = FakeSink(failures=[PeerUnreachableError("gone"), PeerRefusedError("busy", status=503)])

    async def work(log: FlowLog) -> None:
        await asyncio.sleep(0)
        log.add([make_record(1)])

    sending(work, sink)
    assert sink.offered == [1, 1, 1]
    assert len(sink.records) == 1


def test_a_batch_that_will_never_be_taken_is_counted_as_lost_and_holds_up_nothing() -> None:
    sink = FakeSink(failures=[PeerRefusedError("this is no batch", status=400)])

    async def work(log: FlowLog) -> None:
        log.add([make_record(1)], dropped=2)
        await asyncio.sleep(5)
        log.add([make_record(2)])

    sending(work, sink)
    assert sum(batch.dropped for batch in sink.batches) == 3
    assert [record.time_ms for record in sink.records] == [2]


def test_one_devboxs_flood_does_not_hide_what_another_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowlog, "_PER_DEVBOX_MAX", 10)
    monkeypatch.setattr(flowlog, "_PENDING_MAX", 15)
    sink = FakeSink(failures=[PeerUnreachableError("gone")] * 3)

    async def work(log: FlowLog) -> None:
        await asyncio.sleep(0)
        log.add(make_record(n, name=f"{n}.org") for n in range(100))
        log.add([make_record(7, "b")])
        log.add(make_record(n, "c", name=f"{n}.org") for n in range(100))

    sending(work, sink)
    kept = [record.devbox_id for record in sink.records]
    assert (kept.count("a"), kept.count("b"), kept.count("c")) == (10, 1, 4)
    assert sum(batch.dropped for batch in sink.batches) == 90 + 96


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowlog, "_BATCH_MAX", 4)
    sink = FakeSink()

    async def work(log: FlowLog) -> None:
        await asyncio.sleep(0)
        log.add(make_record(n, name=f"{n}.org") for n in range(10))

    sending(work, sink)
    assert [len(batch.records) for batch in sink.batches] == [4, 4, 2]
