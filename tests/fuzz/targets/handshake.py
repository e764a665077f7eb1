"""The first bytes of a flow: what they are, and whom a ClientHello names. OpenSSL is the second reader."""

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache

import h11

from fuzz.cuts import ways_to_cut
from outgate.errors import InvalidValueError
from outgate.model.flow import BadHandshake, TlsHello
from outgate.model.names import parse_domain_name
from outgate.wire.client_hello import ClientHelloReader, NeedMore
from outgate.wire.first_bytes import FirstBytes, classify_first_bytes


def read_hello(data: bytes) -> None:
    whole = _read_hello((data,))
    for pieces in ways_to_cut(data):
        assert _read_hello(pieces) == whole
    if not isinstance(whole, NeedMore):
        assert _read_hello((data, b"more")) == whole, "a verdict that later bytes change"
    if isinstance(whole, TlsHello) and whole.server_name is not None:
        assert parse_domain_name(whole.server_name) == whole.server_name
    heard = name_heard_by_openssl(data)
    if heard is None:
        return
    assert not isinstance(whole, NeedMore), "OpenSSL has the whole hello already"
    if isinstance(whole, TlsHello):
        assert (whole.server_name or "") == _as_we_spell(heard.name), "OpenSSL serves another host"


def _read_hello(pieces: tuple[bytes, ...]) -> NeedMore | TlsHello | BadHandshake:
    reader = ClientHelloReader()
    result: NeedMore | TlsHello | BadHandshake = NeedMore()
    for piece in pieces:
        result = reader.feed(piece)
    return result


def _as_we_spell(name: str | None) -> str:
    """A name that OpenSSL read in our normal form; a literal address names nobody (RFC 6066 §3)."""
    try:
        return parse_domain_name(name or "")
    except InvalidValueError:
        return ""


@dataclass
class Heard:
    """What OpenSSL was asked for, once it had a whole ClientHello."""

    name: str | None


@dataclass
class _Ears:
    heard: list[Heard] = field(default_factory=list)

    def hear(self, _connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int:
        self.heard.append(Heard(name))
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


@cache
def _openssl() -> tuple[ssl.SSLContext, _Ears]:
    ears = _Ears()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sni_callback = ears.hear
    return context, ears


def name_heard_by_openssl(data: bytes) -> Heard | None:
    """Whom a server on OpenSSL takes the client to ask for; None when it never comes to ask."""
    context, ears = _openssl()
    ears.heard.clear()
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    with _names_that_are_no_text(), suppress(ssl.SSLError):
        context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    return ears.heard[0] if ears.heard else None


@contextmanager
def _names_that_are_no_text() -> Iterator[None]:
    """The ssl module complains aside of names beyond ASCII, and does not call back."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def classify(data: bytes) -> None:
    kind = classify_first_bytes(data)
    for end in range(min(len(data), 64)):
        earlier = classify_first_bytes(data[:end])
        assert earlier in (FirstBytes.UNKNOWN, kind), "a verdict that later bytes change"
    closed = classify_first_bytes(data, is_all=True)
    assert closed is not FirstBytes.UNKNOWN
    assert kind in (FirstBytes.UNKNOWN, closed)
    if name_heard_by_openssl(data) is not None:
        assert kind is FirstBytes.TLS, "OpenSSL takes it for TLS"
    if _is_request_to_h11(data):
        assert kind is FirstBytes.HTTP, "h11 takes it for a request"


def _is_request_to_h11(data: bytes) -> bool:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        return isinstance(connection.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        return False
