"""The second ClientHello, for which a TLS 1.3 server may ask (HelloRetryRequest, RFC 8446 §4.1.4).

It must name the same host as the first (§4.1.2), but that is the client's duty, and not every server checks: OpenSSL's
take the second name (openssl/openssl#32472). So the name that was judged says nothing while another hello may follow
in the clear: until the server's first bytes turn out not to ask for one. Every later hello is encrypted.
"""

from typing import Final

import msgspec

from outgate.model.flow import BadHandshake
from outgate.model.names import DomainName
from outgate.wire.client_hello import ClientHelloReader, NeedMore

_HEADER_BYTES: Final = 5
_HANDSHAKE: Final = 22
_HANDSHAKE_BYTE: Final = b"\x16"
_BEFORE_SERVER_HELLO: Final = frozenset({20, 21})
"""change_cipher_spec and alert: "unrecognized_name" comes as a warning."""
_NO_HANDSHAKE: Final = frozenset({20, 21, 23, 24, 25})
_SERVER_HELLO_BYTE: Final = b"\x02"
_RANDOM_AT: Final = _HEADER_BYTES + 6
_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""What a HelloRetryRequest has in the place of a ServerHello's random (RFC 8446 §4.1.3)."""
_ASKING_BYTES: Final = _RANDOM_AT + len(_RETRY_RANDOM)
_HELD_BYTES_MAX: Final = 18 * 1024
"""As for a first hello, and more than the longest record."""


class WatchStep(msgspec.Struct, frozen=True, gc=False):
    """What is to be done: send ``wire`` upstream; ``is_over``: go on unread; ``refusal``: end it, for this reason."""

    wire: bytes = b""
    is_over: bool = False
    refusal: str | None = None


class SecondHelloWatch:
    """Watches a connection from its hello on, until no other can follow in the clear.

    What else the client may send meanwhile passes: early data (RFC 8446 §4.2.10), a change_cipher_spec (§D.4), alerts.
    """

    __slots__ = ("_answer", "_held", "_name", "_reader")

    def __init__(self, name: DomainName | None) -> None:
        """``name``: of the first hello."""
        self._name = name
        self._answer = b""
        self._held = b""
        self._reader: ClientHelloReader | None = None

    @property
    def held(self) -> bytes:
        """What the client sent and no step has given out yet."""
        return self._held

    def answered(self, data: bytes) -> WatchStep:
        """The server sent ``data``, which is on its way to the client."""
        answer = self._answer + data
        answer = answer[_bytes_of_records(answer, _BEFORE_SERVER_HELLO) :]
        if not _may_ask_for_another(answer):
            return self.server_finished()
        self._answer = answer[:_ASKING_BYTES] if answer[:1] == _HANDSHAKE_BYTE else answer
        return WatchStep()

    def server_finished(self) -> WatchStep:
        """The server sends nothing more, so it will not ask."""
        return WatchStep(self._held, is_over=True)

    def received(self, data: bytes) -> WatchStep:
        """The client sent ``data`` behind its first hello."""
        self._held += data
        if self._reader is not None:
            return self._read(self._reader, data)
        skipped = _bytes_of_records(self._held, _NO_HANDSHAKE)
        wire, self._held = self._held[:skipped], self._held[skipped:]
        if not self._held or self._held[0] in _NO_HANDSHAKE:
            return WatchStep(wire, refusal=self._too_long())
        if self._held[0] != _HANDSHAKE:
            # No server goes on with a handshake behind something that is not TLS.
            return WatchStep(wire + self._held, is_over=True)
        self._reader = ClientHelloReader()
        step = self._read(self._reader, self._held)
        return WatchStep(wire + step.wire, is_over=step.is_over, refusal=step.refusal)

    def _read(self, reader: ClientHelloReader, data: bytes) -> WatchStep:
        result = reader.feed(data)
        if isinstance(result, NeedMore):
            return WatchStep(refusal=self._too_long())
        if isinstance(result, BadHandshake):
            return WatchStep(refusal=f"The second hello cannot be read: {result.detail}.")
        if result.server_name != self._name:
            return WatchStep(refusal=f"The second hello names {result.server_name}, the first {self._name}.")
        return WatchStep(self._held, is_over=True)

    def _too_long(self) -> str | None:
        return None if len(self._held) <= _HELD_BYTES_MAX else "What follows the hello is too long."


def _may_ask_for_another(answer: bytes) -> bool:
    """Whether the server's first bytes, alerts left out, are or may become a HelloRetryRequest.

    Its first record reaches beyond its random, however short a client wants records (64 bytes, RFC 8449 §4).
    """
    if answer[:1] != _HANDSHAKE_BYTE:
        return not answer or answer[0] in _BEFORE_SERVER_HELLO
    kind = answer[_HEADER_BYTES : _HEADER_BYTES + 1]
    return kind in (b"", _SERVER_HELLO_BYTE) and _RETRY_RANDOM.startswith(answer[_RANDOM_AT:_ASKING_BYTES])


def _bytes_of_records(data: bytes, kinds: frozenset[int]) -> int:
    """How many bytes at the start of ``data`` are whole records of these kinds."""
    at = 0
    while len(data) >= at + _HEADER_BYTES and data[at] in kinds:
        end = at + _HEADER_BYTES + int.from_bytes(data[at + 3 : at + _HEADER_BYTES], "big")
        if end > len(data):
            break
        at = end
    return at
