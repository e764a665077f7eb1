import asyncio
import time

import pytest

from outgate.control.errors import StoppingError, TooManyWaitsError
from outgate.control.waits import WaitLimit
from outgate.control.wakeups import Subject, Topic, Wakeups

HOST = Topic(Subject.DESIRED_STATE, "host_a")
OTHER = Topic(Subject.DESIRED_STATE, "host_b")
LONG_S = 1000.0
"""Longer than any test may take: a wait that ends was woken."""


def test_a_change_between_reading_and_waiting_is_not_lost() -> None:
    async def run() -> None:
        wakeups = Wakeups()
        with wakeups.watch(HOST) as watch:
            wakeups.notify(HOST)
            await watch.wait(LONG_S)

    asyncio.run(run())


def test_only_those_who_watch_it_wake() -> None:
    async def run() -> None:
        wakeups = Wakeups()
        with wakeups.watch(HOST) as watch, wakeups.watch(OTHER) as other:
            asyncio.get_running_loop().call_later(0.02, wakeups.notify, HOST)
            sleeping = asyncio.ensure_future(other.wait(LONG_S))
            await watch.wait(LONG_S)
            await asyncio.sleep(0.02)
            assert not sleeping.done()
            sleeping.cancel()

    asyncio.run(run())


def test_each_wake_is_used_once() -> None:
    async def run() -> float:
        wakeups = Wakeups()
        with wakeups.watch(HOST, OTHER) as watch:
            wakeups.notify(HOST, OTHER)
            await watch.wait(LONG_S)
            started_s = time.monotonic()
            await watch.wait(0.1)
            return time.monotonic() - started_s

    assert asyncio.run(run()) >= 0.09


def test_closing_ends_waits_now_and_later() -> None:
    async def run() -> None:
        wakeups = Wakeups()
        with wakeups.watch(HOST) as watch:
            asyncio.get_running_loop().call_later(0.02, wakeups.close)
            with pytest.raises(StoppingError):
                await watch.wait(LONG_S)
            with pytest.raises(StoppingError):
                await watch.wait(LONG_S)

    asyncio.run(run())


def test_who_stopped_watching_is_forgotten() -> None:
    async def run() -> Wakeups:
        wakeups = Wakeups()
        with wakeups.watch(HOST), wakeups.watch(HOST):
            pass
        return wakeups

    assert asyncio.run(run())._watches == {}


def test_one_account_cannot_hold_all_waits() -> None:
    limit = WaitLimit()
    with (
        limit.hold("acct_a", 2),
        limit.hold("acct_a", 2),
        limit.hold("acct_b", 2),
        pytest.raises(TooManyWaitsError),
        limit.hold("acct_a", 2),
    ):
        pytest.fail("a third wait was let in")
    with limit.hold("acct_a", 1):
        pass
