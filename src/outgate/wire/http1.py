"""The client's side of an HTTP/1 connection: one request after another, each written anew.

A reader is fed the client's bytes and gives events in order. Heads come whole; bodies come in the
framing in which they go upstream: counted bytes as they are, chunks with sizes written anew (extensions
and trailers are dropped, RFC 9110 §6.5.1). A body whose length is known may go past the reader:
:attr:`RequestReader.passable` says how many bytes need not be looked at.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import h11

from outgate.wire.http1_head import (
    HEAD_BYTES_MAX,
    MalformedRequestError,
    RequestHead,
    check_line_ends,
    check_request_line,
    read_head,
)

_END_OF_HEAD: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class BodyPart:
    """Bytes of the current request's body as they go upstream."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The bytes are no request that may be relayed. Final. ``in_body``: its head had been given out already."""

    detail: str
    is_too_long: bool = False
    in_body: bool = False


RequestEvent = RequestHead | BodyPart | RequestRefused


class _Part(Enum):
    HEAD = auto()
    COUNTED = auto()
    CHUNKED = auto()
    REFUSED = auto()


class RequestReader:
    """Reads the requests of one connection. Idle between requests it holds no buffer."""

    __slots__ = ("_buffer", "_connection", "_left", "_line_seen", "_part", "_refusal", "_scanned")

    def __init__(self) -> None:
        self._part = _Part.HEAD
        self._buffer = b""
        self._scanned = 0
        self._line_seen = False
        self._left = 0
        self._connection: h11.Connection | None = None
        self._refusal: RequestRefused | None = None

    @property
    def passable(self) -> int:
        """How many of the client's next bytes belong to a counted body and need not come by here."""
        return self._left if self._part is _Part.COUNTED and not self._buffer else 0

    @property
    def is_between_requests(self) -> bool:
        """Whether the client owes nothing: the last request is complete and no byte of another has come."""
        return self._part is _Part.HEAD and not self._buffer

    @property
    def rest(self) -> bytes:
        """What was fed and not given out yet."""
        return self._buffer

    def passed(self, count: int) -> None:
        """``count`` (at most :attr:`passable`) bytes of the body went upstream without coming by here."""
        self._left -= count
        if self._left == 0:
            self._part = _Part.HEAD

    def feed(self, data: bytes) -> None:
        """Take more of the client's bytes. The caller bounds what is held: it feeds when :meth:`next` gave None."""
        if self._part is _Part.CHUNKED:
            self._chunks().receive_data(data)
        elif self._part is not _Part.REFUSED:
            self._buffer = self._buffer + data if self._buffer else data

    def next(self) -> RequestEvent | None:
        """The next event, None when more bytes are needed. A refusal is given again and again."""
        if self._refusal is not None:
            return self._refusal
        try:
            return self._next()
        except _TooLongError:
            return self._refuse(RequestRefused("request head too long", is_too_long=True))
        except MalformedRequestError as error:
            return self._refuse(RequestRefused(error.detail, in_body=self._part is _Part.CHUNKED))

    def _next(self) -> RequestEvent | None:
        match self._part:
            case _Part.HEAD:
                return self._next_head()
            case _Part.COUNTED:
                return self._next_counted()
            case _Part.CHUNKED:
                return self._next_chunk()
            case _Part.REFUSED:
                return self._refusal

    def _refuse(self, refusal: RequestRefused) -> RequestRefused:
        self._part = _Part.REFUSED
        self._refusal = refusal
        self._buffer = b""
        self._connection = None
        return refusal

    def _next_head(self) -> RequestHead | None:
        buffer = self._buffer
        if not buffer:
            return None
        limit = min(len(buffer), HEAD_BYTES_MAX)
        if not self._line_seen:
            self._check_first_line(buffer, limit)
        end = buffer.find(_END_OF_HEAD, max(0, self._scanned - 3), limit)
        check_line_ends(buffer, max(0, self._scanned - 1), limit if end < 0 else end + 4)
        if end < 0:
            if len(buffer) > HEAD_BYTES_MAX:
                raise _TooLongError
            self._scanned = limit
            return None
        return self._take_head(end + 4)

    def _check_first_line(self, buffer: bytes, limit: int) -> None:
        newline = buffer.find(b"\n", self._scanned, limit)
        if newline < 0:
            return
        check_line_ends(buffer, 0, newline + 1)
        check_request_line(buffer[: newline - 1])
        self._line_seen = True

    def _take_head(self, end: int) -> RequestHead:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        head = read_head(self._buffer[:end], connection)
        rest = self._buffer[end:]
        self._scanned = 0
        self._line_seen = False
        if head.body_length is None:
            self._part = _Part.CHUNKED
            self._connection = connection
            self._buffer = b""
            connection.receive_data(rest) if rest else None
        else:
            self._buffer = rest
            self._left = head.body_length
            self._part = _Part.COUNTED if self._left else _Part.HEAD
        return head

    def _next_counted(self) -> BodyPart | None:
        if not self._buffer:
            return None
        part, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self.passed(len(part))
        return BodyPart(part)

    def _next_chunk(self) -> BodyPart | None:
        connection = self._chunks()
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            raise MalformedRequestError("malformed chunked body") from None
        if isinstance(event, h11.Data):
            return BodyPart(b"%x\r\n%b\r\n" % (len(event.data), event.data))
        if isinstance(event, h11.EndOfMessage):
            self._buffer = bytes(connection.trailing_data[0])
            self._connection = None
            self._part = _Part.HEAD
            return BodyPart(b"0\r\n\r\n")
        return None

    def _chunks(self) -> h11.Connection:
        assert self._connection is not None, "chunks are read by the connection that read their head"  # noqa: S101 - states _take_head's invariant for mypy
        return self._connection


class _TooLongError(Exception):
    """The head has not ended within HEAD_BYTES_MAX."""
