"""The DNS gate's TCP side (RFC 7766): for replies that do not fit a datagram, and for clients that prefer it."""

import select
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from outgate.dataplane.dns_gate import DnsGate
from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.loop import Loop, Timer
from outgate.dataplane.netns_sockets import close_quietly
from outgate.wire.dns import DnsFormatError
from outgate.wire.dns_query import Query
from outgate.wire.dns_stream import MessageStream, frame

_CONNECTIONS_PER_DEVBOX_MAX: Final = 16
_CONNECTIONS_MAX: Final = 2048
_ACCEPT_MAX: Final = 128
"""All devboxes share the kernel's queue; what is one too many of a devbox's is only closed, which costs little."""
_IDLE_S: Final = 10.0
"""RFC 7766 §6.2.3 asks for a few seconds at least."""
_QUERY_BYTES_MAX: Final = 1024
_RECEIVE_BYTES: Final = 4096
_UNSENT_BYTES_MAX: Final = 256 << 10
"""A client that does not read its replies is cut off. Room for four of the longest."""
_BACKLOG: Final = 1024
_RETRY_ACCEPT_S: Final = 0.1


class DnsTcpListener:
    """Serves ``gate`` on TCP at ``address`` (with its port), in the namespace of the calling thread."""

    def __init__(self, loop: Loop, table: GateTable, gate: DnsGate, address: tuple[str, int]) -> None:
        self._loop = loop
        self._table = table
        self._gate = gate
        self._connections: set[_Connection] = set()
        self._count_of: Counter[str] = Counter()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(address)
        self._socket.listen(_BACKLOG)

    def start(self) -> None:
        """Begin to accept. Until then connections wait in the backlog."""
        self._loop.register(self._socket.fileno(), select.EPOLLIN, self._on_accept)

    def drop_devbox(self, devbox_id: str) -> None:
        """Close the connections of a devbox that ended."""
        for connection in [one for one in self._connections if one.entry.id == devbox_id]:
            connection.close()

    def close(self) -> None:
        """Stop listening and close every connection."""
        for connection in list(self._connections):
            connection.close()
        self._loop.unregister(self._socket.fileno())
        self._socket.close()

    def _on_accept(self, _events: int) -> None:
        try:
            for _ in range(_ACCEPT_MAX):
                accepted, source = self._socket.accept()
                self._admit(accepted, source[0])
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors, most likely: the connection stays in the backlog, so do not spin on it.
            self._loop.modify(self._socket.fileno(), 0)
            self._loop.call_at(
                self._loop.now() + _RETRY_ACCEPT_S, lambda: self._loop.modify(self._socket.fileno(), select.EPOLLIN)
            )

    def _admit(self, accepted: socket.socket, source: str) -> None:
        entry = self._table.find_devbox(source)
        is_full = len(self._connections) >= _CONNECTIONS_MAX
        if entry is None or is_full or self._count_of[entry.id] >= _CONNECTIONS_PER_DEVBOX_MAX:
            close_quietly(accepted)
            return
        accepted.setblocking(False)
        self._count_of[entry.id] += 1
        self._connections.add(_Connection(self._loop, self._gate, accepted, entry, self._forget))

    def _forget(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        self._count_of[connection.entry.id] -= 1
        if not self._count_of[connection.entry.id]:
            del self._count_of[connection.entry.id]


class _Connection:
    """One client connection. Replies leave in the order in which they are ready (RFC 7766 §7)."""

    def __init__(
        self,
        loop: Loop,
        gate: DnsGate,
        accepted: socket.socket,
        entry: DevboxEntry,
        on_close: Callable[["_Connection"], None],
    ) -> None:
        self.entry = entry
        self._loop = loop
        self._gate = gate
        self._socket = accepted
        self._on_close = on_close
        self._stream = MessageStream(_QUERY_BYTES_MAX)
        self._unsent = bytearray()
        self._is_closed = False
        self._has_ended = False
        self._waiting = 0
        loop.register(accepted.fileno(), select.EPOLLIN, self._on_ready)
        self._timer: Timer = loop.call_at(loop.now() + _IDLE_S, self.close)

    def reply(self, query: Query | None, message: bytes, ready_s: float) -> None:  # noqa: ARG002 - the hot path of UDP keeps replies, this one does not
        """Send one reply; as :class:`~outgate.dataplane.dns_gate.Client`."""
        if self._is_closed:
            return
        self._waiting -= 1
        self._unsent += frame(message)
        self._flush()

    def close(self) -> None:
        """Close the connection. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._timer.cancel()
        self._loop.unregister(self._socket.fileno())
        close_quietly(self._socket)
        self._on_close(self)

    def _on_ready(self, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._flush()
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not self._is_closed:
                self._receive()
        except BlockingIOError:
            return
        except (OSError, DnsFormatError):
            self.close()

    def _receive(self) -> None:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            self._has_ended = True
            self._finish_if_done()
            self._watch()
            return
        for message in self._stream.receive(data):
            self._waiting += 1
            self._gate.handle(message, self.entry, self)
            if self._is_closed:
                return
        self._timer.cancel()
        self._timer = self._loop.call_at(self._loop.now() + _IDLE_S, self.close)

    def _flush(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if len(self._unsent) > _UNSENT_BYTES_MAX:
            self.close()
            return
        self._finish_if_done()
        self._watch()

    def _finish_if_done(self) -> None:
        """After the client's half close the connection lives until its last reply is out."""
        if self._has_ended and self._waiting <= 0 and not self._unsent:
            self.close()

    def _watch(self) -> None:
        if not self._is_closed:
            reading = 0 if self._has_ended else select.EPOLLIN
            self._loop.modify(self._socket.fileno(), reading | (select.EPOLLOUT if self._unsent else 0))
