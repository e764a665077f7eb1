"""The ring of decisions."""

import asyncio

import pytest

from outgate.agent import flowlog
from outgate.agent.flowlog import FlowFilter, FlowLog
from outgate.model.desired import FlowRecord
from support.sim_time import run_simulated


def make_record(number: int, devbox_id: str = "a", verdict: str = "allow") -> FlowRecord:
    return FlowRecord(number, devbox_id, "npol_1", 1, verdict, "hostname", "dns")


def numbers(page: flowlog.FlowPage) -> list[int]:
    return [entry.number for entry in page.entries]


def test_pages_follow_each_other_without_gap_or_repeat() -> None:
    log = FlowLog()
    log.add(make_record(n) for n in range(25))
    after, seen = 0, []
    while True:
        page = log.read(FlowFilter(), after, 10)
        if not page.entries:
            break
        seen += numbers(page)
        after = page.next_after
    assert seen == list(range(1, 26))
    log.add([make_record(26)])
    assert numbers(log.read(FlowFilter(), after, 10)) == [26]


def test_filters_and_the_latest() -> None:
    log = FlowLog()
    log.add(make_record(n, "ab"[n % 2], "deny" if n % 3 == 0 else "allow") for n in range(30))
    assert all(entry.record.devbox_id == "b" for entry in log.read(FlowFilter(devbox_id="b"), 0, 100).entries)
    assert len(log.read(FlowFilter(verdict="deny"), 0, 100).entries) == 10
    assert numbers(log.read(FlowFilter(since_ms=28), 0, 100)) == [29, 30]
    assert numbers(log.read(FlowFilter(devbox_id="a"), -1, 2)) == [27, 29]
    assert log.read(FlowFilter(policy_id="npol_2"), 0, 100).entries == ()


def test_a_filter_that_finds_little_does_not_look_at_the_same_entries_again() -> None:
    log = FlowLog()
    log.add(make_record(n) for n in range(30))
    assert log.read(FlowFilter(devbox_id="b"), 0, 10).next_after == 30


def test_the_ring_is_bounded_and_readers_see_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flowlog, "_RECORDS_MAX", 10)
    log = FlowLog()
    log.add((make_record(n) for n in range(25)), dropped=4)
    page = log.read(FlowFilter(), 3, 100)
    assert numbers(page) == list(range(16, 26))
    assert page.dropped == 4


def test_numbers_of_an_earlier_life_start_from_the_beginning() -> None:
    log = FlowLog()
    log.add([make_record(1)])
    assert numbers(log.read(FlowFilter(), 5000, 10)) == [1]


def test_a_reader_waits_for_what_it_wants_and_no_longer() -> None:
    async def scenario() -> None:
        log, loop = FlowLog(), asyncio.get_running_loop()
        waiting = asyncio.ensure_future(log.read_or_wait(FlowFilter(devbox_id="b"), 0, 10, wait_s=30))
        await asyncio.sleep(1)
        log.add([make_record(1, "a")])
        await asyncio.sleep(1)
        log.add([make_record(2, "b")])
        assert numbers(await waiting) == [2]
        assert loop.time() < 3
        page = await log.read_or_wait(FlowFilter(), 2, 10, wait_s=30)
        assert (page.entries, page.next_after) == ((), 2)
        assert loop.time() > 30

    run_simulated(scenario())
