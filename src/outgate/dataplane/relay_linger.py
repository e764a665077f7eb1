"""The end of a client that is still being answered: send the rest, then hear it out.

Closing a socket with unread bytes makes the kernel send a reset, which destroys the answer on its way (RFC 9112
§9.6). So the write side is shut first, and what the client still sends is thrown away, within bounds.
"""

import socket
from enum import Enum, auto
from typing import Final

from outgate.dataplane.pipes import PipePool
from outgate.dataplane.relay_pump import Channel

_DISCARD_BYTES_MAX: Final = 256 * 1024
"""What the client may still send while it reads; beyond it the connection is reset."""
_READ_BYTES: Final = 16 * 1024


class LingerState(Enum):
    """How far a lingering client is."""

    SENDING = auto()
    """It has not taken all of its answer."""
    SENT = auto()
    """It has; its own end is awaited."""
    DONE = auto()
    """Both ends are through: close in peace."""
    BROKEN = auto()
    """Reset it."""


class Lingering:
    """``down`` carries the answer; nothing else will be put in."""

    __slots__ = ("_client", "_discarded", "_down")

    def __init__(self, client: socket.socket, down: Channel) -> None:
        self._client = client
        self._down = down
        self._discarded = 0
        down.is_source_done = True

    def step(self, pool: PipePool) -> LingerState:
        """Do what can be done now."""
        down = self._down
        try:
            down.move(pool)
            if down.is_empty and not down.is_finished:
                down.is_finished = True
                self._client.shutdown(socket.SHUT_WR)
            is_gone = self._discard()
        except OSError:
            return LingerState.BROKEN
        if self._discarded > _DISCARD_BYTES_MAX:
            return LingerState.BROKEN
        if not down.is_finished:
            return LingerState.SENDING  # its own end may come first: it still reads
        return LingerState.DONE if is_gone else LingerState.SENT

    def _discard(self) -> bool:
        """Throw away what the client sends; whether it sent its end."""
        while self._discarded <= _DISCARD_BYTES_MAX:
            try:
                data = self._client.recv(_READ_BYTES)
            except BlockingIOError:
                return False
            if not data:
                return True
            self._discarded += len(data)
        return False
