"""Reads a TLS ClientHello out of whatever segments and records it comes in (RFC 8446 §4.1.2 and §5.1).

A post-quantum hello is 2 KiB and more, so it spans TCP segments as a matter of course; an attacker may
also cut it into several TLS records, one byte each. The reader is sequential: what it says depends on
the bytes alone and never on how they were cut.

With Encrypted Client Hello the outer hello is what is read, and so the outer name is what counts.
"""

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from outgate.errors import InvalidValueError
from outgate.model.flow import BadHandshake, TlsHello
from outgate.model.names import NAME_LENGTH_MAX, DomainName, parse_domain_name

_RECORD_HEADER: Final = 5
_RECORD_MAX: Final = 1 << 14
"""TLSPlaintext.length, RFC 8446 §5.1."""
_HANDSHAKE_RECORD: Final = 22
_CLIENT_HELLO: Final = 1
_MESSAGE_HEADER: Final = 4
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_NAMES_CACHED: Final = 4096
"""Programs name the same few hosts again and again; 4,096 names are about 1 MiB."""


@dataclass(frozen=True, slots=True)
class NeedMore:
    """Nothing is certain yet."""


NEED_MORE: Final = NeedMore()


class ClientHelloReader:
    """Takes the client's bytes in any portions; says at each what is known so far.

    It keeps the handshake bytes it has put together, which are fewer than the bytes it was fed: whoever
    feeds it bounds those.
    """

    __slots__ = ("_message", "_pending", "_result", "consumed")

    def __init__(self) -> None:
        self._pending = bytearray()
        """Bytes of a record that has not come in whole."""
        self._message = bytearray()
        """The handshake message so far, without the record headers."""
        self._result: TlsHello | BadHandshake | None = None
        self.consumed = 0
        """How many of the bytes that were fed are in records that have been read: with a hello, where it ends."""

    def feed(self, data: bytes) -> NeedMore | TlsHello | BadHandshake:
        """What is known with ``data`` added. A hello or a bad handshake is final; later bytes change nothing."""
        if self._result is not None:
            return self._result
        self._pending += data
        result: TlsHello | BadHandshake | None
        try:
            result = self._read_records()
        except _MalformedError as error:
            result = BadHandshake(error.args[0])
        if result is None:
            return NEED_MORE
        self._result = result
        self._pending.clear()
        self._message.clear()
        return result

    def _read_records(self) -> TlsHello | None:
        pending = self._pending
        position = 0
        while len(pending) - position >= _RECORD_HEADER:
            end = position + _RECORD_HEADER + _record_length(pending, position)
            if end > len(pending):
                break
            self._message += pending[position + _RECORD_HEADER : end]
            self.consumed += end - position
            position = end
            hello = _read_message(self._message)
            if hello is not None:
                return hello
        del pending[:position]
        return None


class _MalformedError(Exception):
    """The bytes cannot become a ClientHello; the argument says why."""


def _record_length(data: bytearray, at: int) -> int:
    if data[at] != _HANDSHAKE_RECORD:
        raise _MalformedError("not a TLS handshake record")
    if data[at + 1] != 3:
        raise _MalformedError("not a TLS record version")
    length = data[at + 3] << 8 | data[at + 4]
    if not 0 < length <= _RECORD_MAX:
        # Zero-length fragments of handshake type are forbidden (RFC 8446 §5.1).
        raise _MalformedError("TLS record length out of range")
    return length


def _read_message(message: bytearray) -> TlsHello | None:
    """The hello in ``message``, None while it is incomplete."""
    if message[0] != _CLIENT_HELLO:
        raise _MalformedError("the first TLS message is not a ClientHello")
    if len(message) < _MESSAGE_HEADER:
        return None
    end = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
    if len(message) < end:
        return None
    if len(message) > end:
        # Nothing follows a hello in its flight (RFC 8446 §4.1.2); another hello might.
        raise _MalformedError("bytes behind the ClientHello in its record")
    return TlsHello(_read_hello(bytes(message[_MESSAGE_HEADER:end])))


def _read_hello(body: bytes) -> DomainName | None:
    """The server name in a ClientHello's body; None when it carries none that is a host name."""
    try:
        if body[0] != 3:
            raise _MalformedError("not a TLS client version")
        position = 2 + 32  # legacy_version, random
        if body[position] > 32:
            raise _MalformedError("session id too long")
        position += 1 + body[position]
        suites_length = body[position] << 8 | body[position + 1]
        if suites_length < 2 or suites_length % 2:
            raise _MalformedError("malformed cipher suites")
        position += 2 + suites_length
        if body[position] == 0:
            raise _MalformedError("no compression method")
        position += 1 + body[position]
    except IndexError:
        raise _MalformedError("ClientHello ends early") from None
    if position == len(body):
        return None  # no extensions at all, as TLS 1.0 allowed
    if position > len(body):
        raise _MalformedError("ClientHello ends early")
    return _read_extensions(body, position)


def _read_extensions(body: bytes, position: int) -> DomainName | None:
    end = position + 2 + int.from_bytes(body[position : position + 2], "big")
    if end != len(body):
        raise _MalformedError("extensions do not fill the ClientHello")
    position += 2
    seen: set[int] = set()
    name: DomainName | None = None
    while position < end:
        if end - position < 4:
            raise _MalformedError("extension header ends early")
        kind = body[position] << 8 | body[position + 1]
        after = position + 4 + (body[position + 2] << 8 | body[position + 3])
        if after > end:
            raise _MalformedError("extension ends early")
        if kind in seen:
            # RFC 8446 §4.2: never two of one type. Which of two server names a server takes is its own choice.
            raise _MalformedError("an extension comes twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _read_server_name(body[position + 4 : after])
        position = after
    return name


def _read_server_name(extension: bytes) -> DomainName | None:
    """The one entry of a ServerNameList (RFC 6066 §3)."""
    if len(extension) < 6:
        raise _MalformedError("malformed server name")
    if int.from_bytes(extension[:2], "big") != len(extension) - 2 or extension[2] != _HOST_NAME:
        raise _MalformedError("malformed server name")
    if int.from_bytes(extension[3:5], "big") != len(extension) - 5:
        raise _MalformedError("not exactly one server name")
    if len(extension) - 5 > NAME_LENGTH_MAX + 1:
        raise _MalformedError("the server name is not a host name")
    return _name_from(extension[5:])


@lru_cache(maxsize=_NAMES_CACHED)
def _name_from(spelling: bytes) -> DomainName | None:
    try:
        text = spelling.decode("ascii")
        if _is_address(text):
            return None  # RFC 6066 §3 forbids literals; a program that sends one means "no name"
        return parse_domain_name(text)
    except (UnicodeDecodeError, InvalidValueError):
        raise _MalformedError("the server name is not a host name") from None


def _is_address(text: str) -> bool:
    for parse in (IPv4Address, IPv6Address):
        try:
            parse(text)
        except ValueError:
            continue
        return True
    return False
