"""Connecting to the far side: one address, or several raced (RFC 8305, shortened)."""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Final

import msgspec

from outgate.dataplane.loop import Loop, Timer
from outgate.model.addresses import IPAddress
from outgate.model.tunnels import INSIDE_LENGTH_BYTES, InsideHello

ATTEMPT_DELAY_S: Final = 0.15
"""Head start of each address before the next one is tried; RFC 8305 §5 allows 100 ms to 2 s."""
ATTEMPTS_MAX: Final = 8
"""Addresses of one name that are tried; each costs a descriptor while it is under way."""
_CONNECTING: Final = (0, errno.EINPROGRESS)
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER (socket(7)): closing resets, and drops what was not sent."""
SEND_ON_CLOSE: Final = struct.pack("ii", 0, 0)
"""SO_LINGER: closing sends the rest first, as usual."""


def start_connecting(address: IPAddress, host: str, port: int) -> socket.socket:
    """A non-blocking socket on its way to ``address``, spelled ``host``. Raises OSError when that fails at once."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # The box's own keepalives end at the relay, so the relay must notice a dead far side itself.
    connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # If the gate dies, the kernel must reset the connection and forget what it still holds: an orphan would go on
    # sending after an update that revokes it was reported as enforced.
    connecting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    result = connecting.connect_ex((host, port))
    if result not in _CONNECTING:
        connecting.close()
        raise OSError(result, os.strerror(result))
    return connecting


def connect_front(path: str, hello: InsideHello) -> socket.socket:
    """A connection to the tunnel front, which has been told who is behind it. Raises OSError when it is not there.

    Connecting to a unix socket is done at once, or refused when too many wait there already.
    """
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        connecting.connect(path)
        said = msgspec.json.encode(hello)
        # Some 300 bytes into an empty buffer: all of it or nothing.
        connecting.send(len(said).to_bytes(INSIDE_LENGTH_BYTES, "big") + said)
    except OSError:
        connecting.close()
        raise
    return connecting


def order_addresses(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """Both families in turns, IPv6 first (RFC 8305 §4), at most :data:`ATTEMPTS_MAX`."""
    six = [address for address in addresses if address.version == 6]
    four = [address for address in addresses if address.version == 4]
    mixed = chain.from_iterable(zip_longest(six, four))
    return tuple(address for address in mixed if address is not None)[:ATTEMPTS_MAX]


class Connected(msgspec.Struct, frozen=True, gc=False):
    """An open connection, not registered with the loop, and where it leads."""

    socket: socket.socket
    address: IPAddress


class Race:
    """Tries ``addresses`` in order, each with a head start; the first that answers wins, the others are dropped.

    ``on_end`` is called once, with the winner or with the last error; it may be called by :meth:`start`, and is not
    called after :meth:`cancel`.
    """

    __slots__ = ("_error", "_loop", "_on_end", "_port", "_running", "_timer", "_waiting")

    def __init__(
        self, loop: Loop, addresses: Sequence[IPAddress], port: int, on_end: Callable[[Connected | OSError], None]
    ) -> None:
        self._loop = loop
        self._waiting = list(reversed(order_addresses(addresses)))
        self._port = port
        self._on_end = on_end
        self._running: dict[int, Connected] = {}
        self._timer: Timer | None = None
        self._error = OSError(errno.EHOSTUNREACH, "no address to dial")

    def start(self) -> None:
        """Try the first address."""
        self._try_next()

    def cancel(self) -> None:
        """Drop every attempt."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        for fd, attempt in self._running.items():
            self._loop.unregister(fd)
            attempt.socket.close()
        self._running.clear()

    def _try_next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            address = self._waiting.pop()
            try:
                connecting = start_connecting(address, str(address), self._port)
            except OSError as error:
                self._error = error
                continue
            self._watch(Connected(connecting, address))
            if self._waiting:
                self._timer = self._loop.call_at(self._loop.now() + ATTEMPT_DELAY_S, self._try_next)
            return
        if not self._running:
            self._on_end(self._error)

    def _watch(self, attempt: Connected) -> None:
        fd = attempt.socket.fileno()
        self._running[fd] = attempt
        self._loop.register(fd, select.EPOLLOUT, lambda _events: self._on_ready(fd))

    def _on_ready(self, fd: int) -> None:
        attempt = self._running.pop(fd)
        self._loop.unregister(fd)
        code = attempt.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            attempt.socket.close()
            self._error = OSError(code, os.strerror(code))
            self._try_next()
            return
        self.cancel()
        self._on_end(attempt)
