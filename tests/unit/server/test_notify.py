"""What the service manager is told, and when."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.server.notify import UNMANAGED, ServiceManager, keep_alive, render_notice, take_service_manager


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(30)
        yield bound


def test_the_environment_is_read_once_and_left_without_it() -> None:
    environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "8000000", "OTHER": "x"}
    assert take_service_manager(environment) == ServiceManager("/run/notify", 8.0)
    assert environment == {"OTHER": "x"}
    assert take_service_manager(environment) == UNMANAGED


@pytest.mark.parametrize(
    "environment",
    [
        {"NOTIFY_SOCKET": "/run/notify"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_that_is_not_meant_is_none(environment: dict[str, str]) -> None:
    assert take_service_manager(environment) == ServiceManager("/run/notify")


def test_a_watchdog_that_is_meant_for_this_process() -> None:
    environment = {"NOTIFY_SOCKET": "@notify", "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}
    manager = take_service_manager(environment)
    assert (manager.watchdog_s, manager.look_s) == (4.0, 1.0)


def test_a_value_stays_in_its_line() -> None:
    assert render_notice({"READY": "1", "STATUS": "a\nREADY=0"}) == b"READY=1\nSTATUS=a READY=0"


def test_it_is_told_of_start_and_stop(heard: socket.socket) -> None:
    manager = ServiceManager(heard.getsockname())
    manager.ready("all well")
    manager.stopping()
    assert [heard.recv(99), heard.recv(99)] == [b"READY=1\nSTATUS=all well", b"STOPPING=1"]


def test_a_socket_without_a_file_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0outgate-test-{os.getpid()}")
        bound.settimeout(30)
        ServiceManager(f"@outgate-test-{os.getpid()}").alive()
        assert bound.recv(99) == b"WATCHDOG=1"


def test_a_manager_that_is_gone_ends_nobody(tmp_path: Path) -> None:
    ServiceManager(str(tmp_path / "missing")).alive()
    UNMANAGED.stopping()


def test_the_watchdog_hears_of_each_look_that_went_well_and_of_no_other(heard: socket.socket) -> None:
    looks = [True, False, False, True]
    given: list[float] = []

    async def watch() -> None:
        done = asyncio.Event()

        async def is_well(look_s: float) -> bool:
            given.append(look_s)
            if not looks:
                done.set()
                await asyncio.Event().wait()
            return looks.pop(0)

        task = asyncio.create_task(keep_alive(ServiceManager(heard.getsockname(), 0.04), is_well))
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(watch())
    assert set(given) == {0.01}
    assert [heard.recv(99), heard.recv(99)] == [b"WATCHDOG=1"] * 2
    heard.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard.recv(99)


def test_without_a_watchdog_nothing_is_asked() -> None:
    async def is_well(_look_s: float) -> bool:
        raise AssertionError("nobody wants to know")

    async def watch() -> None:
        task = asyncio.create_task(keep_alive(UNMANAGED, is_well))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()

    asyncio.run(watch())
