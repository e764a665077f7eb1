"""The upstream resolvers: queries by UDP from changing ports, attempts in turn, TCP when an answer is truncated.

Spoofed answers: a query is matched by its random id on one of several connected sockets with random ports (the
kernel drops what comes from elsewhere), and the answer must repeat the question. Each socket is replaced after
some hundreds of queries, and sooner when strangers knock on it.
"""

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from outgate.dataplane.dns_cache import Question
from outgate.dataplane.dns_exchange import (
    ATTEMPT_TIMEOUTS_S,
    Exchange,
    ServerAddress,
    find_refusal,
    parse_exchange,
    render_exchange,
)
from outgate.dataplane.dns_lookup import AskCallback, UpstreamFailure
from outgate.dataplane.dns_upstream_tcp import ask_by_tcp
from outgate.dataplane.dns_upstream_watch import UpstreamWatch
from outgate.dataplane.loop import Loop
from outgate.dataplane.netns_sockets import SocketSource, close_quietly
from outgate.wire.dns import DnsFormatError

_PORTS_PER_SERVER: Final = 8
"""Sockets in use at a time: more would not make guessing harder (one of them must be hit), only waking up costlier."""
_USES_MAX: Final = 512
_STRANGERS_MAX: Final = 64
"""Datagrams without a waiting query (late answers are such, too) before a socket is replaced."""
_PENDING_PER_PORT_MAX: Final = 8192
"""Ids in use; an eighth of all, so that a free one is found at once."""
_DRAIN_MAX: Final = 64
_RECEIVE_BYTES: Final = 4096
"""More than the 1232 bytes that were asked for; a longer datagram is cut and then refused."""
_RECEIVE_BUFFER_BYTES: Final = 1 << 20
_TCP_MAX: Final = 64
"""Truncated answers that are fetched at a time; each may hold 64 KiB."""
_TICK_S: Final = 0.05
_BACK_TO_FIRST_S: Final = 30.0
"""After this time the first resolver is tried first again."""
_RANDOM_BYTES: Final = 4096
ROOT_SERVERS: Final = Question(b"\0", 2, is_relayed=True)
"""Who serves the root (NS, RFC 1035 §3.2.2): every resolver can say, and the question names nobody."""


class Randomness:
    """Unpredictable 16-bit numbers. One ``os.urandom`` gives 2,048: a call for each costs more than all the rest."""

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._bytes = b""
        self._offset = 0

    def take(self) -> int:
        """0 to 65,535."""
        if self._offset >= len(self._bytes):
            self._bytes, self._offset = self._source(_RANDOM_BYTES), 0
        offset = self._offset
        self._offset = offset + 2
        return self._bytes[offset] << 8 | self._bytes[offset + 1]


class _Port:
    """One connected socket and the queries that wait on it."""

    __slots__ = ("descriptor", "is_retired", "pending", "server", "strangers", "uses")

    def __init__(self, descriptor: socket.socket, server: int) -> None:
        self.descriptor = descriptor
        self.server = server
        self.pending: dict[int, Exchange] = {}
        self.uses = 0
        self.strangers = 0
        self.is_retired = False


class DnsUpstream:
    """Asks the resolvers in ``servers``; the first is preferred while it answers.

    ``warn`` is told which of them do not answer (see :mod:`outgate.dataplane.dns_upstream_watch`).
    """

    def __init__(
        self,
        loop: Loop,
        sockets: SocketSource,
        servers: Sequence[ServerAddress],
        randomness: Randomness | None = None,
        *,
        warn: Callable[[str, str], None] = lambda _code, _text: None,
    ) -> None:
        self._loop = loop
        self._sockets = sockets
        self._servers = tuple(servers)
        self._watch = UpstreamWatch(loop, self._servers, self._probe, warn)
        self._random = randomness or Randomness()
        self._ports: list[list[_Port]] = [[] for _ in servers]
        self._preferred = 0
        self._preferred_until_s = 0.0
        # Attempts of one ordinal all have the same timeout, so each queue is in order of deadline by itself.
        self._deadlines: tuple[deque[tuple[float, Exchange]], ...] = tuple(deque() for _ in ATTEMPT_TIMEOUTS_S)
        self._is_ticking = False
        self._tcp_count = 0

    def ask(self, question: Question, callback: AskCallback) -> None:
        """Call ``callback`` once, later than now, with the answer or the reason why there is none."""
        if self._preferred and self._loop.now() >= self._preferred_until_s:
            self._preferred = 0
        exchange = Exchange(question, callback)
        exchange.server = self._preferred
        self._attempt(exchange)

    def _probe(self, server: int) -> None:
        """Ask that server what every one can answer; the watch hears how it ends."""
        exchange = Exchange(ROOT_SERVERS, lambda _outcome: None)
        exchange.server = server
        self._attempt(exchange)

    def close(self) -> None:
        """Close the sockets; questions under way stay unanswered."""
        for ports in self._ports:
            for port in ports:
                self._loop.unregister(port.descriptor.fileno())
                port.descriptor.close()
            ports.clear()

    # -- attempts

    def _attempt(self, exchange: Exchange) -> None:
        if exchange.is_done or exchange.is_by_tcp:
            return
        if exchange.attempt == len(ATTEMPT_TIMEOUTS_S):
            text = exchange.refusal or "no upstream resolver answered in time"
            exchange.finish(UpstreamFailure(text))
            return
        deadline_s = self._loop.now() + ATTEMPT_TIMEOUTS_S[exchange.attempt]
        self._deadlines[exchange.attempt].append((deadline_s, exchange))
        exchange.attempt += 1
        if not self._is_ticking:
            self._is_ticking = True
            self._loop.call_at(self._loop.now() + _TICK_S, self._tick)
        try:
            self._send(exchange)
        except OSError as error:
            # As good as lost: the deadline moves it on, and everybody else to another server at once.
            exchange.refusal = f"the upstream resolver cannot be reached: {error.strerror}"
            self._lose(exchange.server)

    def _send(self, exchange: Exchange) -> None:
        port = self._take_port(exchange.server)
        pending = port.pending
        query_id = self._random.take()
        while query_id in pending:
            query_id = self._random.take()
        pending[query_id] = exchange
        exchange.hold(self._release, port, query_id)
        port.descriptor.send(render_exchange(exchange.question, query_id))

    def _tick(self) -> None:
        now_s = self._loop.now()
        is_waiting = False
        for number, queue in enumerate(self._deadlines, 1):
            while queue and (queue[0][0] <= now_s or queue[0][1].is_done):
                _, exchange = queue.popleft()
                if exchange.attempt == number and not (exchange.is_done or exchange.is_by_tcp):
                    self._lose(exchange.server)
                    self._try_next(exchange)
            is_waiting = is_waiting or bool(queue)
        self._is_ticking = is_waiting
        if is_waiting:
            self._loop.call_at(now_s + _TICK_S, self._tick)

    def _try_next(self, exchange: Exchange) -> None:
        exchange.server = (exchange.server + 1) % len(self._servers)
        self._attempt(exchange)

    def _lose(self, server: int) -> None:
        """An attempt at ``server`` came to nothing."""
        self._watch.failed(server)
        if server == self._preferred and len(self._servers) > 1:
            self._preferred = (server + 1) % len(self._servers)
            self._preferred_until_s = self._loop.now() + _BACK_TO_FIRST_S

    # -- sockets

    def _take_port(self, server: int) -> _Port:
        ports = self._ports[server]
        if len(ports) < _PORTS_PER_SERVER:
            ports.append(self._open_port(server))
            return ports[-1]
        index = self._random.take() % len(ports)
        port = ports[index]
        is_worn = port.uses >= _USES_MAX or port.strangers >= _STRANGERS_MAX
        if is_worn or len(port.pending) >= _PENDING_PER_PORT_MAX:
            fresh = self._open_port(server)
            ports[index] = fresh
            port.is_retired = True
            if not port.pending:
                self._close_port(port)
            port = fresh
        port.uses += 1
        return port

    def _open_port(self, server: int) -> _Port:
        target = self._servers[server]
        descriptor = self._sockets.take(target.family, socket.SOCK_DGRAM)
        try:
            descriptor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            descriptor.connect((target.address, target.port))
        except OSError:
            close_quietly(descriptor)
            raise
        port = _Port(descriptor, server)
        self._loop.register(descriptor.fileno(), select.EPOLLIN, lambda _events: self._receive(port))
        return port

    def _close_port(self, port: _Port) -> None:
        self._loop.unregister(port.descriptor.fileno())
        close_quietly(port.descriptor)

    def _release(self, port: _Port, query_id: int) -> None:
        port.pending.pop(query_id, None)
        if port.is_retired and not port.pending:
            self._close_port(port)

    # -- answers

    def _receive(self, port: _Port) -> None:
        receive = port.descriptor.recv
        try:
            for _ in range(_DRAIN_MAX):
                self._take_answer(port, receive(_RECEIVE_BYTES))
                if port.is_retired and not port.pending:
                    return  # closed by its last answer
        except BlockingIOError:
            return
        except OSError as error:
            self._take_error(port, error)

    def _take_answer(self, port: _Port, message: bytes) -> None:
        query_id = int.from_bytes(message[:2], "big")
        exchange = port.pending.get(query_id)
        if exchange is None:
            port.strangers += 1
            return
        try:
            answer = parse_exchange(exchange.question, query_id, message)
        except DnsFormatError:
            # A forgery, or a broken server: the true answer may still come.
            port.strangers += 1
            return
        self._watch.answered(port.server)
        if answer.is_truncated:
            if not exchange.is_by_tcp:
                self._ask_by_tcp(exchange, port.server)
            return
        refusal = find_refusal(answer)
        if not refusal:
            exchange.finish(answer)
            return
        exchange.refusal = refusal
        if port.server != exchange.server or exchange.is_by_tcp:
            return  # a late word from a server that was given up already
        if len(self._servers) > 1 and exchange.attempt < len(ATTEMPT_TIMEOUTS_S):
            self._try_next(exchange)
        else:
            exchange.finish(UpstreamFailure(refusal))

    def _take_error(self, port: _Port, error: OSError) -> None:
        """ICMP says that nobody listens there: go on with another server, if there is one, without waiting."""
        self._lose(port.server)
        for exchange in list(port.pending.values()):
            exchange.refusal = f"the upstream resolver cannot be reached: {error.strerror}"
            if len(self._servers) > 1 and exchange.server == port.server:
                self._try_next(exchange)

    def _ask_by_tcp(self, exchange: Exchange, server: int) -> None:
        if self._tcp_count >= _TCP_MAX:
            exchange.finish(UpstreamFailure("too many long answers are being fetched"))
            return
        self._tcp_count += 1
        exchange.is_by_tcp = True
        exchange.hold(self._count_tcp_down)
        ask_by_tcp(self._loop, self._sockets, self._servers[server], exchange, self._random.take())

    def _count_tcp_down(self) -> None:
        self._tcp_count -= 1
