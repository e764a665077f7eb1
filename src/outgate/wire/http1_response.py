"""Where the responses of an HTTP/1 connection begin and end, and nothing else about them.

Responses go to the client as they come. The relay must only know when the ones asked for are complete
(then a refusal may be written behind them) and when a 101 has turned the connection into something
else. The server is allowed and nothing depends on its good will: a tracker that cannot follow says so, and
passes everything on.
"""

import re
from collections import deque
from enum import Enum, auto
from typing import Final

UNBOUNDED: Final = 1 << 62
"""As a count of bytes: all that come."""
_HEAD_BYTES_MAX: Final = 64 * 1024
"""Servers that send many cookies exceed 18 KiB; beyond this the tracker stops following."""
_LINE_BYTES_MAX: Final = 4096
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})")
_LENGTH: Final = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r?\n)", re.IGNORECASE)
_CODING: Final = re.compile(rb"\ntransfer-encoding:[ \t]*([^\r\n]*?)[ \t]*(?=\r?\n)", re.IGNORECASE)
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?\r?\n\Z", re.DOTALL)


class ResponsesState(Enum):
    """What is known of the responses."""

    COMPLETE = auto()
    """Every request has its whole response."""
    PENDING = auto()
    UPGRADED = auto()
    """A 101 came; from here on the bytes are another protocol's."""
    UNKNOWN = auto()
    """The end of a response is the end of the connection, or cannot be told."""


class _Part(Enum):
    HEAD = auto()
    COUNTED = auto()
    CHUNK_SIZE = auto()
    CHUNK_END = auto()
    CHUNK_DATA = auto()
    TRAILER = auto()


class ResponseTracker:
    """Follows the responses of one connection, in the order of the requests (RFC 9112 §9.3.2)."""

    __slots__ = ("_buffer", "_left", "_methods", "_part", "_state")

    def __init__(self) -> None:
        self._methods: deque[tuple[bytes, bool]] = deque()
        self._part = _Part.HEAD
        self._buffer = b""
        self._left = 0
        self._state: ResponsesState | None = None
        """Set when it is final: UPGRADED or UNKNOWN."""

    @property
    def state(self) -> ResponsesState:
        """What is known now."""
        if self._state is not None:
            return self._state
        return ResponsesState.PENDING if self._methods else ResponsesState.COMPLETE

    @property
    def pending(self) -> int:
        """Requests whose response is not complete, as far as can be told."""
        return len(self._methods)

    @property
    def passable(self) -> int:
        """How many of the server's next bytes need not come by here."""
        if self._state is not None:
            return UNBOUNDED
        return self._left if self._part in (_Part.COUNTED, _Part.CHUNK_DATA) and not self._buffer else 0

    def passed(self, count: int) -> None:
        """``count`` (at most :attr:`passable`) bytes went to the client without coming by here."""
        if self._state is None:
            self._take_body(count)

    def expect(self, method: bytes, *, may_upgrade: bool) -> None:
        """A request went upstream; its response comes behind those already expected."""
        if self._state is None:
            self._methods.append((method, may_upgrade))

    def feed(self, data: bytes) -> None:
        """Look at bytes that go to the client."""
        if self._state is not None:
            return
        self._buffer = self._buffer + data if self._buffer else data
        while self._buffer and self._step():
            pass
        if self.state in (ResponsesState.UPGRADED, ResponsesState.UNKNOWN):
            self._buffer = b""

    def _step(self) -> bool:
        """Read on; False when more bytes are needed."""
        match self._part:
            case _Part.HEAD:
                return self._step_head()
            case _Part.COUNTED | _Part.CHUNK_DATA:
                count = min(self._left, len(self._buffer))
                self._buffer = self._buffer[count:]
                self._take_body(count)
                return True
            case _Part.CHUNK_SIZE | _Part.CHUNK_END | _Part.TRAILER:
                return self._step_line()

    def _take_body(self, count: int) -> None:
        self._left -= count
        if self._left:
            return
        if self._part is _Part.COUNTED:
            self._finish()
        else:
            self._part = _Part.CHUNK_END

    def _finish(self) -> None:
        self._methods.popleft()
        self._part = _Part.HEAD

    def _lose(self) -> bool:
        self._state = ResponsesState.UNKNOWN
        self._methods.clear()
        return False

    def _step_head(self) -> bool:
        end = _END_OF_HEAD.search(self._buffer)
        if end is None:
            return self._lose() if len(self._buffer) > _HEAD_BYTES_MAX else False
        head, self._buffer = self._buffer[: end.end()], self._buffer[end.end() :]
        status = _STATUS.match(head)
        if status is None or not self._methods:
            return self._lose()
        return self._begin(head, int(status.group(1)))

    def _begin(self, head: bytes, status: int) -> bool:
        method, may_upgrade = self._methods[0]
        if status == 101 and may_upgrade:
            self._state = ResponsesState.UPGRADED
            self._methods.clear()
            return False
        if 100 <= status < 200:
            return True  # an interim response; the final one follows
        if method == b"HEAD" or status in (204, 304):
            self._finish()
            return True
        return self._begin_body(head)

    def _begin_body(self, head: bytes) -> bool:
        """RFC 9112 §6.3, as a client reads it."""
        codings, lengths = _CODING.findall(head), set(_LENGTH.findall(head))
        if codings:
            if codings[-1].lower().rpartition(b",")[2].strip() != b"chunked":
                return self._lose()
            self._part = _Part.CHUNK_SIZE
            return True
        if len(lengths) != 1:
            return self._lose()
        self._part = _Part.COUNTED
        self._left = int(lengths.pop())
        self._take_body(0)
        return True

    def _step_line(self) -> bool:
        end = self._buffer.find(b"\n") + 1
        if end == 0:
            return self._lose() if len(self._buffer) > _LINE_BYTES_MAX else False
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        is_empty = line in (b"\r\n", b"\n")
        match self._part:
            case _Part.TRAILER:
                if is_empty:
                    self._finish()
                return True
            case _Part.CHUNK_END:
                self._part = _Part.CHUNK_SIZE
                return True if is_empty else self._lose()
            case _:
                return self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> bool:
        size = _CHUNK_SIZE.match(line)
        if size is None:
            return self._lose()
        self._left = int(size.group(1), 16)
        self._part = _Part.CHUNK_DATA if self._left else _Part.TRAILER
        return True
