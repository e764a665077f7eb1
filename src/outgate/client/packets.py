"""Packets with descriptors, over a unix socket that keeps packets apart (SOCK_SEQPACKET, unix(7)).

A descriptor crosses only between processes of one host: the bytes that go through it cross nothing at all.
"""

import array
import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

PACKET_BYTES_MAX: Final = 160 * 1024
"""The longest packet: a command of 128 KiB as JSON. The kernel's default socket buffer, 208 KiB, holds one."""
DESCRIPTORS_MAX: Final = 3
_INT_BYTES: Final = array.array("i").itemsize


@dataclass(frozen=True, slots=True)
class Packet:
    """What arrived. ``data`` is empty at the end of the connection. ``descriptors`` belong to the receiver."""

    data: bytes
    descriptors: tuple[int, ...] = ()


class PacketSocket:
    """One connection, in an event loop. One task may receive and one may send at a time."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._loop = asyncio.get_running_loop()

    async def receive(self) -> Packet:
        """The next packet, empty at the end. Raises OSError, also for a packet that is too long."""
        while True:
            try:
                return self._receive_now()
            except BlockingIOError:
                await wait_readable(self._socket.fileno())

    async def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one packet; ``descriptors`` stay the sender's own. Raises OSError when nobody receives any more."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        while True:
            try:
                self._socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                await wait_writable(self._socket.fileno())
            else:
                return

    def close(self) -> None:
        """End the connection. May be called twice; whoever still receives must be cancelled before."""
        self._socket.close()

    def _receive_now(self) -> Packet:
        data, ancillary, flags, _ = self._socket.recvmsg(
            PACKET_BYTES_MAX, socket.CMSG_SPACE(DESCRIPTORS_MAX * _INT_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        received = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received.frombytes(content[: len(content) - len(content) % _INT_BYTES])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            close_all(received)
            raise OSError("the peer sent a packet that is too long")
        return Packet(data, tuple(received))


async def wait_readable(descriptor: int) -> None:
    """Return when a read would not block. One waiter for each descriptor."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(descriptor, _set_done, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def wait_writable(descriptor: int) -> None:
    """Return when a write would not block. One waiter for each descriptor."""
    loop = asyncio.get_running_loop()
    room = loop.create_future()
    loop.add_writer(descriptor, _set_done, room)
    try:
        await room
    finally:
        loop.remove_writer(descriptor)


def close_all(descriptors: Sequence[int]) -> None:
    """Close each; one that is closed already is passed over."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
