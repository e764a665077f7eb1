"""Ends connections that nobody uses: the HTTP server itself bounds their number and not what they do.

A connection takes one of the server's places from its first packet on, so a client that connects and says nothing, or
says it a byte at a time, would take all of them (slow loris). The server's descriptors are this process's, and so
they are found, and ended, from here.
"""

import asyncio
import fcntl
import os
import socket
import stat
import struct
import termios
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from outgate.clock import monotonic_s
from outgate.core.clients import client_of

LOOK_EVERY_S: Final = 1.0
QUIET_S_MAX: Final = 60.0
"""Without a request: idle, or in the middle of a head that does not come to its end."""
CROWDED_QUIET_S_MAX: Final = 5.0
"""The same while most of the server's places are taken."""
SENDING_S_MAX: Final = 600.0
"""How long after a request its answer may still be on its way, while the client goes on taking it."""
PER_CLIENT_MAX: Final = 1280
"""One account's long polls (1,000), each with a connection of its own, and some more."""
UNREAD_S_MAX: Final = 300
"""How long a client may leave what was sent to it unread (TCP_USER_TIMEOUT: a closed window counts, too)."""
_CROWDED_SHARE: Final = 0.75
_DESCRIPTORS: Final = "/proc/self/fd"
_LAST_SENT_AT: Final = 44
"""Where struct tcp_info holds the milliseconds since data were sent last (linux/tcp.h)."""
_TCP_INFO_BYTES: Final = 104

Peer = tuple[str, int]


@dataclass(slots=True)
class _Connection:
    """A connection, by the inode of its socket: numbers of descriptors are used again."""

    descriptor: int
    peer: Peer
    client: str
    quiet_since_s: float


@dataclass(slots=True)
class ConnectionGuard:
    """An ASGI application around ``app`` that knows which connections of ``listening`` have requests under way.

    ``places`` is how many connections the server takes. ``proxies`` may have any number of them, being many clients.
    """

    app: ASGIApp
    listening: socket.socket
    places: int
    proxies: Collection[IPv4Network | IPv6Network] = ()
    _under_way: Counter[Peer] = field(default_factory=Counter)
    _finished: set[Peer] = field(default_factory=set)
    """Those that a request of ended since the last look."""
    _connections: dict[int, _Connection] = field(default_factory=dict)
    _others: set[int] = field(default_factory=set)
    """Sockets that are no connections of ours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and count it meanwhile."""
        address = scope.get("client")
        if not address:
            await self.app(scope, receive, send)
            return
        peer = _peer(address[0], int(address[1]))
        self._under_way[peer] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._under_way[peer] -= 1
            if not self._under_way[peer]:
                del self._under_way[peer]
                self._finished.add(peer)

    async def run(self) -> None:
        """End what has to end, until cancelled."""
        log = structlog.get_logger("connections")
        self.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S_MAX * 1000)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                ended = self.look(monotonic_s())
            except OSError as error:
                log.warning("cannot look", error=str(error))
                continue
            for client, count in ended.items():
                log.info("too many connections", client=client, ended=count)

    def look(self, now_s: float) -> Counter[str]:
        """Look at all connections, and end those that are quiet for too long, and those of a client beyond its bound.

        Returns how many ended for the latter reason, by client. Raises OSError when there is nothing to see.
        """
        self._find(now_s)
        finished, self._finished = self._finished, set()
        for connection in self._connections.values():
            if connection.peer in self._under_way or connection.peer in finished:
                connection.quiet_since_s = now_s
        is_crowded = len(self._connections) > self.places * _CROWDED_SHARE
        quiet_s_max = CROWDED_QUIET_S_MAX if is_crowded else QUIET_S_MAX
        for inode, connection in tuple(self._connections.items()):
            quiet_s = now_s - connection.quiet_since_s
            if quiet_s > quiet_s_max and (quiet_s > SENDING_S_MAX or not _is_sending(inode, connection, quiet_s_max)):
                self._end(inode)
        return self._end_surplus()

    def _find(self, now_s: float) -> None:
        seen = set()
        with os.scandir(_DESCRIPTORS) as entries:
            descriptors = [int(entry.name) for entry in entries]
        for descriptor in descriptors:
            try:
                status = os.fstat(descriptor)
            except OSError:
                continue  # closed meanwhile
            if not stat.S_ISSOCK(status.st_mode):
                continue
            seen.add(status.st_ino)
            if status.st_ino not in self._connections and status.st_ino not in self._others:
                self._learn(descriptor, status.st_ino, now_s)
        self._others &= seen
        for inode in self._connections.keys() - seen:
            del self._connections[inode]

    def _learn(self, descriptor: int, inode: int, now_s: float) -> None:
        taken = _take(descriptor, inode)
        if taken is None:
            return
        with taken:
            peer = self._peer_of(taken)
        if peer is None:
            self._others.add(inode)
        else:
            self._connections[inode] = _Connection(descriptor, peer, client_of(peer[0]), now_s)

    def _peer_of(self, taken: socket.socket) -> Peer | None:
        if taken.family != self.listening.family or taken.type != socket.SOCK_STREAM:
            return None
        try:
            if taken.getsockname()[1] != self.listening.getsockname()[1]:
                return None
            host, port = taken.getpeername()[:2]
        except OSError:
            return None  # it listens, or is gone
        return _peer(host, port)

    def _end(self, inode: int) -> None:
        taken = _take(self._connections.pop(inode).descriptor, inode)
        if taken is not None:
            with taken:
                _shut_down(taken)

    def _end_surplus(self) -> Counter[str]:
        of_client = Counter(connection.client for connection in self._connections.values())
        surplus = {client: count - PER_CLIENT_MAX for client, count in of_client.items() if count > PER_CLIENT_MAX}
        ended: Counter[str] = Counter()
        if not surplus:
            return ended
        for inode, connection in sorted(self._connections.items(), key=_youth, reverse=True):
            client = connection.client
            is_useful = connection.peer in self._under_way or self._is_proxy(connection.peer[0])
            if ended[client] < surplus.get(client, 0) and not is_useful:
                ended[client] += 1
                self._end(inode)
        return +ended

    def _is_proxy(self, host: str) -> bool:
        return any(ip_address(host) in network for network in self.proxies)


def _youth(item: tuple[int, _Connection]) -> float:
    return item[1].quiet_since_s


def _peer(host: str, port: int) -> Peer:
    """In one spelling: the server writes addresses otherwise than the kernel."""
    parsed = ip_address(host.partition("%")[0])
    mapped = parsed.ipv4_mapped if parsed.version == 6 else None
    return str(mapped or parsed), port


def _take(descriptor: int, inode: int) -> socket.socket | None:
    """The socket behind a descriptor that somebody else may close at any time; None when it is another one by now."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    if os.fstat(copy).st_ino != inode:
        os.close(copy)
        return None
    return socket.socket(fileno=copy)


def _is_sending(inode: int, connection: _Connection, within_s: float) -> bool:
    """Whether some of an answer is still on its way, and some of it left within that time."""
    taken = _take(connection.descriptor, inode)
    if taken is None:
        return False
    with taken:
        try:
            unsent: int = struct.unpack("=i", fcntl.ioctl(taken, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
            info = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:
            return False
    last_sent_ms: int = struct.unpack_from("=I", info, _LAST_SENT_AT)[0]
    return unsent > 0 and last_sent_ms < within_s * 1000


def _shut_down(taken: socket.socket) -> None:
    try:
        taken.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it ended by itself
