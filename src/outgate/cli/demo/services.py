"""What the far-side servers do with the bytes of one connection. No sockets here: bytes in, bytes out."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import h11

from outgate.cli.demo.control import ServiceKind
from outgate.cli.demo.journal import Connection

BANNER = b"220 ready\r\n"
CHUNK = b"0123456789abcdef" * 1024
ENDLESS_BYTES = 1 << 40
"""A Content-Length nobody will ever read to the end."""
ENDLESS_RATE_BYTES_S = 1024 * 1024
KEPT_BYTES_MAX = 64 * 1024
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_EMPTY_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_TLS_FIRST_BYTES = frozenset({20, 21, 22, 23})
_TLS_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
"""Fatal, handshake_failure (RFC 8446 §6)."""
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class Wire(Protocol):
    """What a service may ask of its connection."""

    record: Connection

    def send(self, data: bytes) -> None:
        """Send ``data`` (through TLS, where there is TLS)."""

    def finish(self) -> None:
        """Send what is pending, then end."""

    def stream(self, rate_bytes_s: float) -> None:
        """Send :data:`CHUNK` over and over, at most so fast, until the connection ends."""


class Service(Protocol):
    """One connection's behaviour."""

    def opened(self) -> None:
        """The connection (and its TLS) is up."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def ended(self) -> None:
        """The client will send nothing more."""


class Echo:
    """Sends back what comes, after ``banner``."""

    def __init__(self, wire: Wire, banner: bytes = b"") -> None:
        """Over ``wire``."""
        self._wire = wire
        self._banner = banner

    def opened(self) -> None:
        """Speak first, where there is something to say."""
        if self._banner:
            self._wire.send(self._banner)

    def received(self, data: bytes) -> None:
        """Send it back."""
        self._wire.send(data)

    def ended(self) -> None:
        """End too."""
        self._wire.finish()


class Sink:
    """Takes everything, says nothing."""

    def __init__(self, wire: Wire) -> None:
        """Over ``wire``."""
        self._wire = wire

    def opened(self) -> None:
        """Nothing to say."""

    def received(self, data: bytes) -> None:
        """The connection's record has counted it."""

    def ended(self) -> None:
        """End too."""
        self._wire.finish()


class Push(Sink):
    """Sends for ever, without being asked."""

    def opened(self) -> None:
        """Begin."""
        self._wire.stream(ENDLESS_RATE_BYTES_S)

    def ended(self) -> None:
        """Goes on: half a connection is enough for it."""


class Tape(Sink):
    """Keeps what comes for readers who judge it later, and answers so that a client goes on.

    Servers differ in what they make of odd bytes; this one takes no side. Each empty line gets a response as if a
    request head ended there, each piece of TLS the alert that ends a handshake.
    """

    def __init__(self, wire: Wire) -> None:
        """Over ``wire``."""
        super().__init__(wire)
        self._answered = 0

    def received(self, data: bytes) -> None:
        """Keep it, up to a bound; answer what there is to answer."""
        record = self._wire.record
        record.kept += data[: KEPT_BYTES_MAX - len(record.kept)]
        if record.kept[0] in _TLS_FIRST_BYTES:
            self._wire.send(_TLS_ALERT)
            return
        heads = len(_EMPTY_LINE.findall(record.kept))
        if heads > self._answered:
            self._wire.send(_EMPTY_RESPONSE * (heads - self._answered))
            self._answered = heads


class Http:
    """HTTP/1.1 with keep-alive, over h11."""

    def __init__(self, wire: Wire) -> None:
        """Over ``wire``."""
        self._wire = wire
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = b""
        self._websocket = b""
        self._is_websocket = False

    def opened(self) -> None:
        """The client speaks first."""

    def received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if self._is_websocket:
            self._websocket_received(data)
            return
        self._http.receive_data(data)
        self._advance()

    def ended(self) -> None:
        """End too."""
        self._wire.finish()

    def _advance(self) -> None:
        while not self._is_websocket:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._wire.record.requests.append(f"BAD {error}")
                self._wire.finish()
                return
            match event:
                case h11.NEED_DATA | h11.PAUSED:
                    return
                case h11.Request():
                    self._request, self._body = event, b""
                    self._note(event)
                case h11.Data():
                    self._body += bytes(event.data)
                case h11.EndOfMessage():
                    self._answer()
                case h11.ConnectionClosed():
                    self._wire.finish()
                    return

    def _note(self, request: h11.Request) -> None:
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        target = request.target.decode("latin-1")
        self._wire.record.requests.append(f"{request.method.decode('latin-1')} http://{','.join(hosts)}{target}")

    def _answer(self) -> None:
        request = self._request
        if request is None:
            return
        url = urlsplit(request.target.decode("latin-1"))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        match url.path.split("/")[1:]:
            case ["bytes", count] if count.isdigit():
                self._respond(200, CHUNK * (int(count) // len(CHUNK)) + CHUNK[: int(count) % len(CHUNK)])
            case ["endless"]:
                self._endless(float(parse_qs(url.query).get("rate", [str(ENDLESS_RATE_BYTES_S)])[0]))
            case ["echo"]:
                self._respond(200, self._body)
            case ["headers"]:
                self._respond(200, json.dumps(headers).encode() + b"\n")
            case ["ws"] if "sec-websocket-key" in headers:
                self._upgrade(headers["sec-websocket-key"])
            case [""]:
                self._respond(200, f"hello from {self._wire.record.host}\n".encode())
            case _:
                self._respond(404, b"not here\n")

    def _respond(self, status: int, body: bytes) -> None:
        self._send(h11.Response(status_code=status, headers=[("content-length", str(len(body)))]))
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self._wire.finish()

    def _endless(self, rate_bytes_s: float) -> None:
        self._send(h11.Response(status_code=200, headers=[("content-length", str(ENDLESS_BYTES))]))
        self._wire.stream(rate_bytes_s)

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._wire.send(data)

    def _upgrade(self, key: str) -> None:
        digest = hashlib.sha1(key.encode() + _WEBSOCKET_GUID, usedforsecurity=False).digest()
        headers = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-accept", base64.b64encode(digest).decode()),
        ]
        self._send(h11.InformationalResponse(status_code=101, headers=headers))
        self._is_websocket = True
        self._websocket_received(self._http.trailing_data[0])

    def _websocket_received(self, data: bytes) -> None:
        """Echo each complete frame (RFC 6455 §5.2; small ones, as our tests send), unmasked."""
        self._websocket += data
        while len(self._websocket) >= 6 and len(self._websocket) >= 6 + (length := self._websocket[1] & 0x7F):
            mask, payload = self._websocket[2:6], self._websocket[6 : 6 + length]
            plain = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
            self._wire.send(bytes([self._websocket[0], length]) + plain)
            self._websocket = self._websocket[6 + length :]


SERVICES: dict[ServiceKind, Callable[[Wire], Service]] = {
    ServiceKind.HTTP: Http,
    ServiceKind.ECHO: Echo,
    ServiceKind.SINK: Sink,
    ServiceKind.PUSH: Push,
    ServiceKind.TAPE: Tape,
    ServiceKind.BANNER: lambda wire: Echo(wire, BANNER),
}
