"""The far side of a relayed connection: nothing, on its way, or open."""

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.relay_dial import RESET_ON_CLOSE, SEND_ON_CLOSE, Connected, start_connecting
from outgate.dataplane.relay_target import DialEnd, NamedDial
from outgate.dataplane.resolver import Resolver
from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName

EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
READ_BYTES: Final = 16 * 1024
"""Taken from a socket in one go; less than that has emptied it (epoll(7))."""


def reset(connection: socket.socket) -> None:
    """Close with a TCP reset; what was not sent yet is dropped."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    connection.close()


def close_in_peace(connection: socket.socket) -> None:
    """Close an upstream connection; the kernel sends what is left."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, SEND_ON_CLOSE)
    connection.close()


class Upstream:
    """One connection at a time: to the address that the box chose, or to a named host."""

    __slots__ = ("_dial", "_loop", "address", "is_connecting", "socket")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._dial: NamedDial | None = None
        self.socket: socket.socket | None = None
        self.address: IPAddress | None = None
        """Where the connection leads, once there is one; kept when it is dropped."""
        self.is_connecting = False

    def dial_chosen(self, address: IPAddress, host: str, port: int, on_events: Callable[[int], None]) -> int:
        """Start connecting to ``address``, spelled ``host``; ``on_events`` hears of the socket. Returns its descriptor.

        Raises OSError when that is refused at once.
        """
        self.is_connecting = True
        return self.attach(Connected(start_connecting(address, host, port), address), on_events)

    def dial_named(
        self,
        entry: DevboxEntry,
        name: DomainName,
        port: int,
        on_end: Callable[[DialEnd], None],
        *,
        table: GateTable,
        resolver: Resolver,
    ) -> None:
        """Start connecting to ``name``. ``on_end`` hears how it ended; a connection is to be attached then."""
        self.address = None
        self._dial = NamedDial(self._loop, entry, name, port, on_end)
        self._dial.start(table, resolver)

    def attach(self, connected: Connected, on_events: Callable[[int], None]) -> int:
        """Take a connection over. Returns its descriptor."""
        self._dial = None
        self.socket = connected.socket
        self.address = connected.address
        fd = connected.socket.fileno()
        self._loop.register(fd, EVENTS, on_events)
        return fd

    def receive(self, size: int) -> bytes | None:
        """What the server sent, empty at its end, None when nothing is there. Raises OSError."""
        if self.socket is None:
            return None
        try:
            return self.socket.recv(size)
        except BlockingIOError:
            return None

    def shut(self) -> None:
        """Tell the server that nothing more comes. Raises OSError."""
        if self.socket is not None:
            self.socket.shutdown(socket.SHUT_WR)

    def error(self) -> str:
        """Why the connection failed."""
        code = 0 if self.socket is None else self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return os.strerror(code) if code else "the connection broke"

    def drop(self, *, is_reset: bool) -> None:
        """Close what there is, by a reset or in peace, and stop what is on its way."""
        self.is_connecting = False
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self.socket is not None:
            self._loop.forget(self.socket.fileno())
            if is_reset:
                reset(self.socket)
            else:
                close_in_peace(self.socket)
            self.socket = None
