"""The second half of a question whose answer did not fit a datagram (RFC 7766)."""

import errno
import os
import select
import socket
from typing import Final

from outgate.dataplane.dns_exchange import Exchange, ServerAddress, find_refusal, parse_exchange, render_exchange
from outgate.dataplane.dns_lookup import UpstreamFailure
from outgate.dataplane.loop import Loop, Timer
from outgate.dataplane.netns_sockets import SocketSource, close_quietly
from outgate.wire.dns import DnsFormatError
from outgate.wire.dns_stream import MessageStream, frame

_TIMEOUT_S: Final = 3.0
_RECEIVE_BYTES: Final = 65_537
_MESSAGE_BYTES_MAX: Final = 65_535


def ask_by_tcp(loop: Loop, sockets: SocketSource, server: ServerAddress, exchange: Exchange, query_id: int) -> None:
    """Ask ``server`` by TCP and finish ``exchange`` with what comes, within 3 s."""
    try:
        descriptor = sockets.take(server.family, socket.SOCK_STREAM)
    except OSError as error:
        exchange.finish(UpstreamFailure(f"no socket for the upstream resolver: {error.strerror}"))
        return
    _TcpQuestion(loop, descriptor, exchange, query_id).start(server)


class _TcpQuestion:
    def __init__(self, loop: Loop, descriptor: socket.socket, exchange: Exchange, query_id: int) -> None:
        self._loop = loop
        self._socket = descriptor
        self._exchange = exchange
        self._query_id = query_id
        self._unsent = frame(render_exchange(exchange.question, query_id))
        self._stream = MessageStream(_MESSAGE_BYTES_MAX)
        self._timer: Timer | None = None

    def start(self, server: ServerAddress) -> None:
        self._loop.register(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT, self._on_ready)
        self._timer = self._loop.call_at(self._loop.now() + _TIMEOUT_S, lambda: self._fail("did not answer in time"))
        self._exchange.hold(self._close)
        code = self._socket.connect_ex((server.address, server.port))
        if code not in (0, errno.EINPROGRESS):
            self._fail(os.strerror(code))

    def _on_ready(self, events: int) -> None:
        try:
            if self._unsent and events & select.EPOLLOUT:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if not self._unsent:
                    self._loop.modify(self._socket.fileno(), select.EPOLLIN)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error.strerror or "the connection broke")

    def _receive(self) -> None:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            self._fail("closed the connection")
            return
        try:
            messages = self._stream.receive(data)
            if not messages:
                return
            answer = parse_exchange(self._exchange.question, self._query_id, messages[0])
        except DnsFormatError as error:
            self._fail(f"sent {error.message}")
            return
        refusal = find_refusal(answer)
        if refusal or answer.is_truncated:
            self._exchange.finish(UpstreamFailure(refusal or "the upstream resolver truncates by TCP, too"))
        else:
            self._exchange.finish(answer)

    def _fail(self, text: str) -> None:
        self._exchange.finish(UpstreamFailure(f"the upstream resolver, by TCP: {text}"))

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unregister(self._socket.fileno())
        close_quietly(self._socket)
