"""The tunnel front, whole and in memory: what a client gets of a devbox's answer, and a devbox of a client's request."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import h11
from aiohttp import web

from outgate.client.dialer import DialError
from outgate.front.activity import Activity
from outgate.front.listeners import _SERVER_OPTIONS
from outgate.front.proxy import ClientConnection, Proxy, ProxyNeeds
from outgate.front.routes import RouteTable
from outgate.front.upstream import Upstream
from outgate.model.names import DomainName
from outgate.model.tunnels import DialStatus, InsideHello, TunnelFeed, TunnelRoute, WakeAnswer, WakeState

_DOMAIN = DomainName("tunnel.example.com")
_KEY, _OTHER = "aaaqeayeaudaocajnhf3wai7", "aaaqeayeaudaocajnhf3wai6"
_HOST, _OTHER_HOST = f"80-{_KEY}.{_DOMAIN}", f"80-{_OTHER}.{_DOMAIN}"
_TURNS = 40
"""Turns of the loop in which a request of a few pieces is served."""
_FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1234) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closed:
            self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0


class _Writer:
    """As much of asyncio's writer as the front uses."""

    def __init__(self) -> None:
        self.transport = _Transport()
        self.write = self.transport.write

    async def drain(self) -> None:
        """It took everything."""


@dataclass
class _Front:
    """One client's connection to the front. ``answers``: what the devboxes say, by id."""

    answers: dict[str, bytes]
    inside: InsideHello | None = None
    heard: list[tuple[str, _Transport]] = field(default_factory=list)
    client: _Transport = field(default_factory=_Transport)

    async def dial(self, devbox_id: str, port: int) -> Upstream:
        if port != 80:
            raise DialError("refused", DialStatus.REFUSED)
        reader, writer = asyncio.StreamReader(), _Writer()
        reader.feed_data(self.answers[devbox_id])
        reader.feed_eof()
        self.heard.append((devbox_id, writer.transport))
        return Upstream(reader, writer)  # type: ignore[arg-type] # what it uses of a StreamWriter

    async def wake(self, key: str) -> WakeAnswer:
        del key
        return WakeAnswer(WakeState.ASLEEP)

    async def open_pty(self) -> Upstream:
        raise ConnectionRefusedError

    async def serve(self, *pieces: bytes) -> None:
        table = RouteTable()
        routes = (TunnelRoute(_KEY, "dbx_a", "acct_a"), TunnelRoute(_OTHER, "dbx_b", "acct_b"))
        table.apply(TunnelFeed(1, full=True, tunnels=routes))
        proxy = Proxy(ProxyNeeds(_DOMAIN, table, Activity(), self.dial, self, self.open_pty, 0))
        server = web.Server(proxy.handle, handler_cancellation=True)
        connection = ClientConnection(server, inside=self.inside, **_SERVER_OPTIONS)
        connection.connection_made(self.client)
        for piece in pieces:
            if not self.client.is_closed:
                connection.data_received(piece)
                await _turn()
        was_closed = self.client.is_closed
        connection.connection_lost(None)
        await _turn()
        self.client.is_closed = was_closed


async def _turn() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _request(host: str, method: str = "GET") -> bytes:
    return f"{method} /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def answer(data: bytes) -> None:
    """What a devbox's server answers: the client reads that answer, or a broken connection, and then the next one."""
    method = "HEAD" if data[:1] == b"H" and not data.startswith(b"HTTP") else "GET"
    front = _Front({"dbx_a": data, "dbx_b": _FINE})
    _loop().run_until_complete(front.serve(_request(_HOST, method), _request(_OTHER_HOST)))
    if front.client.is_closed:
        return
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.receive_data(bytes(front.client.written))
    bodies = [_read_response(client, "GET" if turn else method) for turn in range(2)]
    assert bodies[1] == b"fine", "the answer to the next request, of another devbox, is not as that devbox gave it"
    said = _body_by_h11(data, method)
    assert said is None or bodies[0] == said
    assert client.trailing_data == (b"", False)


def _read_response(client: h11.Connection, method: str) -> bytes:
    if client.our_state is not h11.IDLE:
        client.start_next_cycle()
    client.send(h11.Request(method=method, target="/x", headers=[("host", "a.example")]))
    client.send(h11.EndOfMessage())
    return b"".join(_data(client))


def _data(client: h11.Connection) -> Iterator[bytes]:
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.InformationalResponse | h11.Response | h11.Data), f"the client is told {event!r}"
        if isinstance(event, h11.Data):
            yield bytes(event.data)


def _body_by_h11(data: bytes, method: str) -> bytes | None:
    """The body of the devbox's own answer; None when it is no whole answer."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    client.send(h11.Request(method=method, target="/x", headers=[("host", "a.example"), ("connection", "close")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    body = b""
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Response | h11.InformationalResponse | h11.Data):
                return None
            body += event.data if isinstance(event, h11.Data) else b""
    except h11.RemoteProtocolError:
        return None
    return body


def ask(data: bytes) -> None:
    """What a client says: each devbox hears whole requests, one on each connection, that name none but it.

    With an odd first byte the client is a devbox, which may use the one tunnel it was let through to.
    """
    is_inside = bool(data[:1] and data[0] & 1)
    inside = InsideHello("dbx_a", "acct_a", _HOST, is_tls=True) if is_inside else None
    front = _Front({"dbx_a": _FINE, "dbx_b": _FINE}, inside)
    _loop().run_until_complete(front.serve(data[1:]))
    for devbox_id, heard in front.heard:
        assert not is_inside or devbox_id == "dbx_a", "a devbox reaches a tunnel that it was not let through to"
        _check_heard(bytes(heard.written))


def _check_heard(written: bytes) -> None:
    if not written:
        return
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(written)
    request = server.next_event()
    assert isinstance(request, h11.Request), "the devbox hears what is no request"
    names = [name for name, _ in request.headers]
    assert not {b"x-runloop-host", b"x-runloop-tunnel-authorization"} & set(names)
    assert names.count(b"x-forwarded-proto") == 1
    assert request.target.startswith(b"/") or request.target == b"*"
    while isinstance(event := server.next_event(), h11.Data):
        pass
    is_over = isinstance(event, h11.EndOfMessage)
    assert not is_over or server.trailing_data[0] == b"", "a second request behind the one that was judged"
