"""The DNS gate's UDP socket: the hot path for repeated questions, and fairness between devboxes.

A reply that was rendered within the last second is sent again for the very same query bytes by one look-up in
a dictionary (8.6 µs a query, of which 5.2 are the two system calls; drained 64 at a time). The dictionary is
emptied whenever the table changes, so it never outlives a decision.

All devboxes share one socket and so one receive buffer: a devbox that fills it would make the kernel drop the
others' queries. While the socket is never empty for some turns, datagrams are counted by source, and each devbox
that sends a good part of them gets a socket of its own, bound to its link, with a smaller share of each turn.
(Without that, a single flooding devbox cost another one 14 of 100 queries; with it, none.)
"""

import select
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from outgate.core.measuring import LatencyCounts
from outgate.dataplane.dns_gate import DnsGate
from outgate.dataplane.gate_table import DevboxEntry, GateTable
from outgate.dataplane.loop import Loop
from outgate.dataplane.netns_sockets import close_quietly
from outgate.wire.dns import ResponseCode
from outgate.wire.dns_query import Query, parse_query_id
from outgate.wire.dns_reply import fit_udp, render_refusal

_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h; the socket module has no name for it
_DRAIN_MAX: Final = 64
_DRAIN_OF_LINK_MAX: Final = 16
_QUERY_BYTES_MAX: Final = 1024
"""A question has 271 bytes at most; what is longer comes with options nobody needs."""
_RECEIVE_BUFFER_BYTES: Final = 4 << 20
_READY_BYTES_MAX: Final = 8 << 20
"""Some 25,000 replies. Letting all of them go takes some 10 ms, in which nobody is served."""
_READY_OVERHEAD_BYTES: Final = 300
_CROWDED_TURNS: Final = 8
"""Turns in a row that left datagrams behind before sources are counted."""
_SAMPLE_SIZE: Final = 1024
_SHARE_SET_APART: Final = 32
"""A devbox that sends more than one datagram in this many of a crowd gets a socket of its own."""
_OWN_SOCKETS_MAX: Final = 256
_OWN_SOCKET_S: Final = 30.0
WARNING_CODE: Final = "dns_no_own_socket"


class ReadyReplies:
    """Rendered replies by (source address, query without its id), each with the time it may be used until."""

    def __init__(self, bytes_max: int = _READY_BYTES_MAX) -> None:
        self.replies: dict[tuple[str, bytes], tuple[float, bytes]] = {}
        self._bytes_max = bytes_max
        self._bytes = 0

    def store(self, key: tuple[str, bytes], until_s: float, reply: bytes) -> None:
        """Keep a reply (without its id). When there is no more room, all go: they are rendered again soon enough."""
        self._bytes += len(key[1]) + len(reply) + _READY_OVERHEAD_BYTES
        if self._bytes > self._bytes_max:
            self.clear()
        self.replies[key] = (until_s, reply)

    def clear(self) -> None:
        """Forget all."""
        self.replies.clear()
        self._bytes = 0


class _UdpClient:
    __slots__ = ("_listener", "_message", "_send", "_target")

    def __init__(
        self,
        listener: "DnsUdpListener",
        send: Callable[[bytes, tuple[str, int]], int],
        target: tuple[str, int],
        message: bytes,
    ) -> None:
        self._listener = listener
        self._send = send
        self._target = target
        self._message = message

    def reply(self, query: Query | None, message: bytes, ready_s: float) -> None:
        if query is not None:
            message = fit_udp(query, message)
        self._listener.send(self._send, message, self._target)
        if ready_s > 0:
            self._listener.keep_ready((self._target[0], self._message[2:]), message[2:], ready_s)


@dataclass(slots=True)
class _OwnSocket:
    descriptor: socket.socket
    until_s: float


class DnsUdpListener:
    """Serves ``gate`` on UDP at ``address`` (with its port), in the namespace of the calling thread."""

    def __init__(
        self,
        loop: Loop,
        table: GateTable,
        gate: DnsGate,
        address: tuple[str, int],
        *,
        on_warning: Callable[[str, str], None],
        latency: LatencyCounts | None = None,
    ) -> None:
        """``latency`` counts the replies that were ready, from the beginning of the turn that read the question."""
        self._loop = loop
        self._table = table
        self._gate = gate
        self._address = address
        self._on_warning = on_warning
        self._latency = latency or LatencyCounts()
        self._ready = ReadyReplies()
        self._own: dict[str, _OwnSocket] = {}
        self._has_warned = False
        self._crowded_turns = 0
        self._sample: Counter[str] | None = None
        self._socket = self._open(None, _RECEIVE_BUFFER_BYTES)
        self.port: int = self._socket.getsockname()[1]
        self._address = (address[0], self.port)

    def start(self) -> None:
        """Begin to read. Until then queries wait in the socket's buffer."""
        self._loop.register(self._socket.fileno(), select.EPOLLIN, self._on_shared)

    def forget(self) -> None:
        """The table changed: no rendered reply holds any more, and links may be others."""
        self._ready.clear()
        links = {entry.link for entry in self._table.devboxes()}
        for link in [link for link in self._own if link not in links]:
            self._close_own(link)

    def close(self) -> None:
        """Stop listening."""
        for link in list(self._own):
            self._close_own(link)
        self._loop.unregister(self._socket.fileno())
        self._socket.close()

    def send(self, send: Callable[[bytes, tuple[str, int]], int], message: bytes, target: tuple[str, int]) -> None:
        """Send one datagram; what does not go out is lost, as any datagram may be."""
        try:
            send(message, target)
        except OSError:
            return

    def keep_ready(self, key: tuple[str, bytes], reply: bytes, ready_s: float) -> None:
        """Let the hot path give this reply for the next ``ready_s`` seconds."""
        self._ready.store(key, self._loop.now() + ready_s, reply)

    def _open(self, link: str | None, buffer_bytes: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # Sockets of single links share the address with the one for all.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
            if link is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            made.bind(self._address)
        except OSError:
            made.close()
            raise
        return made

    # -- reading

    def _on_shared(self, _events: int) -> None:
        if self._drain(self._socket, _DRAIN_MAX, self._sample):
            self._crowded_turns += 1
            if self._sample is None and self._crowded_turns >= _CROWDED_TURNS:
                self._sample = Counter()
        else:
            self._sample, self._crowded_turns = None, 0
        if self._sample is not None and self._sample.total() >= _SAMPLE_SIZE:
            self._take_apart(self._sample)

    def _drain(self, source: socket.socket, drain_max: int, sample: Counter[str] | None) -> bool:
        """Serve up to ``drain_max`` queries; True when there may be more."""
        receive, send = source.recvfrom, source.sendto
        ready = self._ready.replies
        now_s = self._loop.now()
        answered = 0
        try:
            for _ in range(drain_max):
                message, target = receive(_QUERY_BYTES_MAX + 1)
                if sample is not None:
                    sample[target[0]] += 1
                found = ready.get((target[0], message[2:]))
                if found is not None and found[0] > now_s:
                    answered += 1
                    send(message[:2] + found[1], target)
                else:
                    self._serve(message, target, send)
        except BlockingIOError:
            return False
        except OSError:
            # One reply that could not be sent, or an ICMP error of an earlier one: the next turn goes on.
            return True
        finally:
            if answered:
                # At most so long, each: reading the clock for each of them would cost a tenth of answering it.
                self._latency.observe(self._loop.read_clock() - now_s, answered)
        return True

    def _serve(self, message: bytes, target: tuple[str, int], send: Callable[[bytes, tuple[str, int]], int]) -> None:
        if len(message) > _QUERY_BYTES_MAX:
            return
        entry = self._table.find_devbox(target[0])
        client = _UdpClient(self, send, target, message)
        if entry is not None:
            self._gate.handle(message, entry, client)
            return
        query_id = parse_query_id(message)
        if query_id is not None:
            client.reply(None, render_refusal(query_id, ResponseCode.REFUSED), 0)

    # -- sockets of single links

    def _take_apart(self, sample: Counter[str]) -> None:
        self._sample, self._crowded_turns = None, 0
        for source, count in sample.items():
            entry = self._table.find_devbox(source)
            if entry is not None and count * _SHARE_SET_APART > sample.total() and entry.link not in self._own:
                self._open_own(entry)

    def _open_own(self, entry: DevboxEntry) -> None:
        if len(self._own) >= _OWN_SOCKETS_MAX:
            return
        try:
            descriptor = self._open(entry.link, _RECEIVE_BUFFER_BYTES // 16)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                text = f"A devbox that floods the DNS gate cannot be set apart from the others: {error.strerror}."
                self._on_warning(WARNING_CODE, text)
            return
        self._own[entry.link] = _OwnSocket(descriptor, self._loop.now() + _OWN_SOCKET_S)
        self._loop.register(descriptor.fileno(), select.EPOLLIN, lambda _events: self._on_own(entry.link, descriptor))
        self._loop.call_at(self._loop.now() + _OWN_SOCKET_S, lambda: self._review_own(entry.link, descriptor))

    def _on_own(self, link: str, descriptor: socket.socket) -> None:
        if self._drain(descriptor, _DRAIN_OF_LINK_MAX, None) and link in self._own:
            self._own[link].until_s = self._loop.now() + _OWN_SOCKET_S

    def _review_own(self, link: str, descriptor: socket.socket) -> None:
        own = self._own.get(link)
        if own is None or own.descriptor is not descriptor:
            return
        if own.until_s <= self._loop.now():
            self._close_own(link)
        else:
            self._loop.call_at(own.until_s, lambda: self._review_own(link, descriptor))

    def _close_own(self, link: str) -> None:
        own = self._own.pop(link)
        self._loop.unregister(own.descriptor.fileno())
        close_quietly(own.descriptor)
