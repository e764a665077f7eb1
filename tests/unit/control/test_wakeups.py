import asyncio
import time

import pytest

from outgate.control.errors import StoppingError, TooManyWaitsError
from outgate.control.waits import WaitLimit
from outgate.control.wakeups import Subject, Topic, Wakeups

HOST = Topic(Subject.DESIRED_STATE, "host_a")
OTHER = Topic(Subject.DESIRED_STATE, "host_b")
LONG_S = 5.0


async def elapsed_s(watch_wait: "asyncio.Future[None] | asyncio.Task[None]") -> float:
    started = time.monotonic()
    await watch_wait
    return time.monotonic() - started


def test_a_change_between_reading_and_waiting_is_not_lost() -> None:
    async def run() -> float:
        wakeups = Wakeups()
        with wakeups.watch(HOST) as watch:
            wakeups.notify(HOST)
            return await elapsed_s(asyncio.ensure_future(watch.wait(LONG_S)))

    assert asyncio.run(run()) < 1


def test_only_those_who_watch_it_wake() -> None:
    async def run() -> tuple[float, float]:
        wakeups = Wakeups()
        with wakeups.watch(HOST) as watch, wakeups.watch(OTHER) as other:
            asyncio.get_running_loop().call_later(0.02, wakeups.notify, HOST)
            woken, slept = (
                elapsed_s(asyncio.ensure_future(watch.wait(LONG_S))),
                elapsed_s(asyncio.ensure_future(other.wait(0.3))),
            )
            first, second = await asyncio.gather(woken, slept)
            return first, second

    woken_s, slept_s = asyncio.run(run())
    assert woken_s < 0.3 <= slept_s + 0.05


def test_each_wake_is_used_once() -> None:
    async def run() -> float:
        wakeups = Wakeups()
        with wakeups.watch(HOST, OTHER) as watch:
            wakeups.notify(HOST, OTHER)
            await watch.wait(LONG_S)
            return await elapsed_s(asyncio.ensure_future(watch.wait(0.1)))

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
