"""Connections into a namespace, handed over by a socket: who gets one, where to, and what cannot hold it up."""

import asyncio
import os
import secrets
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from outgate.agent import dial_service
from outgate.agent.dial_service import DialService, bind_dial_socket
from outgate.client.dialer import DialError, dial
from outgate.dataplane import netns
from outgate.dataplane.layout import NetworkLayout, choose_layout
from outgate.model.tunnels import DialStatus

pytestmark = pytest.mark.kernel

Serve = Callable[[Callable[[Path], Awaitable[Any]]], Any]


class Box:
    """A devbox's network: a namespace with nothing but loopback, at slot 7 of a layout of its own."""

    def __init__(self) -> None:
        self.layout: NetworkLayout = choose_layout(secrets.token_hex(3), ())
        self.name = self.layout.devbox_namespace(7)
        self.slots: dict[str, int] = {"dbx_1": 7}

    def listen(self, address: str, port: int, backlog: int = 8) -> socket.socket:
        with netns.entered(self.name):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listening = socket.socket(family, socket.SOCK_STREAM)
        listening.bind((address, port))
        listening.listen(backlog)
        return listening


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    with netns.created(made.name), netns.entered(made.name):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        yield made
    finally:
        netns.remove_namespace(made.name)


@pytest.fixture
def serve(box: Box, tmp_path: Path) -> Serve:
    """Run something while the service serves its user."""

    def run(work: Callable[[Path], Awaitable[Any]], uids: frozenset[int] = frozenset({os.geteuid()})) -> Any:
        async def both() -> Any:
            path = tmp_path / "dial.sock"
            with bind_dial_socket(path) as bound:
                service = DialService(box.layout, box.slots.get, uids)
                serving = asyncio.ensure_future(service.serve(bound))
                try:
                    async with asyncio.timeout(20):
                        return await work(path)
                finally:
                    serving.cancel()
                    with suppress(asyncio.CancelledError):
                        await serving

        return uvloop.run(both())

    return run


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_server_on_loopback_alone_is_reached(box: Box, serve: Serve, address: str) -> None:
    with box.listen(address, 3000) as listening:

        async def talk(path: Path) -> bytes:
            with await dial(path, "dbx_1", 3000) as opened:
                accepted, _ = listening.accept()
                with accepted:
                    accepted.sendall(b"from the box")
                loop = asyncio.get_running_loop()
                return await loop.sock_recv(opened, 100)

        assert serve(talk) == b"from the box"
    with socket.socket() as own, pytest.raises(ConnectionRefusedError):
        own.connect(("127.0.0.1", 3000))  # the host's loopback is another


@pytest.mark.parametrize(
    ("devbox_id", "port", "status"),
    [
        ("dbx_1", 3000, DialStatus.REFUSED),
        ("dbx_1", 0, DialStatus.REFUSED),
        ("dbx_1", 65536, DialStatus.REFUSED),
        ("dbx_2", 3000, DialStatus.NOT_RUNNING),
        ("../dbx_1", 3000, DialStatus.NOT_RUNNING),
    ],
)
def test_what_is_not_reached(serve: Serve, devbox_id: str, port: int, status: DialStatus) -> None:
    with pytest.raises(DialError) as caught:
        serve(lambda path: dial(path, devbox_id, port))
    assert caught.value.status is status


def test_a_devbox_whose_namespace_is_gone_or_whose_slot_passed_on(box: Box, serve: Serve) -> None:
    box.slots["dbx_2"] = 8
    with pytest.raises(DialError) as caught:
        serve(lambda path: dial(path, "dbx_2", 3000))
    assert caught.value.status is DialStatus.NOT_RUNNING
    asked = iter([7, None])
    with box.listen("127.0.0.1", 3000):
        box.slots = type("Slots", (), {"get": lambda _self, _devbox_id: next(asked)})()
        with pytest.raises(DialError) as caught:
            serve(lambda path: dial(path, "dbx_1", 3000))
    assert caught.value.status is DialStatus.NOT_RUNNING


def test_strangers_and_nonsense_get_nothing(serve: Serve) -> None:
    with pytest.raises(DialError) as caught:
        serve(lambda path: dial(path, "dbx_1", 3000), frozenset({12345}))  # type: ignore[call-arg] # the fixture's own
    assert caught.value.status is DialStatus.BUSY

    async def babble(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(str(path))
            asking.send(b"[1, 2")
            asking.setblocking(False)
            return await asyncio.get_running_loop().sock_recv(asking, 100)

    assert serve(babble) == b""


def test_a_server_that_does_not_accept_holds_up_nobody_else(
    box: Box, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial_service, "CONNECT_WAIT_S", 0.5)
    monkeypatch.setattr(dial_service, "DIALS_PER_DEVBOX_MAX", 6)
    box.slots["dbx_2"] = 7
    with box.listen("127.0.0.1", 3000, backlog=0), box.listen("127.0.0.1", 4000):

        async def flood(path: Path) -> list[DialStatus]:
            async def one(devbox_id: str, port: int) -> DialStatus:
                try:
                    (await dial(path, devbox_id, port)).close()
                except DialError as error:
                    return error.status
                return DialStatus.CONNECTED

            kept = [await dial(path, "dbx_1", 3000)]  # the backlog takes one
            flooding = [asyncio.ensure_future(one("dbx_1", 3000)) for _ in range(10)]
            await asyncio.sleep(0.1)
            other = await one("dbx_2", 4000)
            statuses = [*await asyncio.gather(*flooding), other]
            for opened in kept:
                opened.close()
            return statuses

        *flooded, other = serve(flood)
    assert other is DialStatus.CONNECTED
    assert {DialStatus.BUSY, DialStatus.REFUSED} <= set(flooded)
    assert flooded.count(DialStatus.BUSY) >= 4
