"""One direction of a relayed connection: bytes from one socket to the other.

Streams go by ``splice`` through a pipe and never become Python objects. A message that fits into one small read is
copied instead: that is two system calls and no pipe, where ``splice`` needs a third one to find the socket
empty (a pipe may be full before the socket is, so a short splice says nothing).
SPLICE_F_MORE is never set: it corks small messages for up to 200 ms (measured).
"""

import os
from enum import Enum, auto
from typing import Final

from outgate.dataplane.pipes import PIPE_BYTES, Pipe, PipePool

UNBOUNDED: Final = 1 << 62
_COPY_BYTES_MAX: Final = 16 * 1024
"""Read in one go before a stream is taken for a stream."""
_BULK_BYTES_MIN: Final = _COPY_BYTES_MAX
"""A source that gave this much at once is spliced from the start the next time."""
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_WORK_BYTES_MAX: Final = 4 << 20
"""Bytes moved per event, so that one fast stream starves nobody: about a millisecond."""


class Pumped(Enum):
    """Why a channel stopped moving bytes."""

    WAITING = auto()
    """The source has nothing, or the sink takes nothing, for now; or the source ended."""
    WORK_CAP = auto()
    """It could go on, but others shall have their turn."""


class Channel:
    """Bytes from ``source_fd`` to ``sink_fd``. Errors of the sockets come out as OSError."""

    __slots__ = (
        "is_bulk",
        "is_ending",
        "is_finished",
        "is_scheduled",
        "is_source_done",
        "moved",
        "pipe",
        "sink_fd",
        "source_fd",
        "tail",
    )

    def __init__(self, source_fd: int, sink_fd: int) -> None:
        self.source_fd = source_fd
        self.sink_fd = sink_fd
        self.pipe: Pipe | None = None
        self.tail = b""
        """Bytes of ours that the sink did not take at once. They go out behind the pipe's, before the source's."""
        self.moved = 0
        """Bytes that the sink took."""
        self.is_bulk = False
        self.is_ending = False
        """The source's end was announced (EPOLLRDHUP); it may be behind bytes still to be read."""
        self.is_source_done = False
        """The source's end was read."""
        self.is_finished = False
        """The end was passed on."""
        self.is_scheduled = False
        """It reached its work cap and goes on later in this turn or in the next."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on its way."""
        return self.pipe is None and not self.tail

    def move(self, pool: PipePool, limit: int = UNBOUNDED) -> tuple[Pumped, int]:
        """Move what can be moved now; take at most ``limit`` bytes from the source. Returns also how many it took."""
        if self.tail and not self._flush(pool):
            return Pumped.WAITING, 0
        return self._take(pool, limit)

    def _take(self, pool: PipePool, limit: int) -> tuple[Pumped, int]:
        if self.pipe is not None:
            # Filled up even while the sink is slow: the source then goes on sending.
            return self._splice(pool, limit)
        if self.is_source_done or limit <= 0:
            return Pumped.WAITING, 0
        if self.is_bulk:
            return self._splice(pool, limit)
        size = min(limit, _COPY_BYTES_MAX)
        taken = 0
        while (count := self._copy(size)) is not None:
            taken += count
            if self.tail or taken == limit or (count < size and not self.is_ending):
                break  # epoll(7): a short read has emptied the socket
            if count == size:
                why, spliced = self._splice(pool, limit - taken)
                return why, taken + spliced
            size = min(limit - taken, _COPY_BYTES_MAX)
        return Pumped.WAITING, taken

    def _copy(self, size: int) -> int | None:
        """Read at most ``size`` bytes and send them; None when there is nothing, or never will be."""
        try:
            data = os.read(self.source_fd, size)
        except BlockingIOError:
            return None
        if not data:
            self.is_source_done = True
            return None
        self.tail = data
        self._move_tail()
        return len(data)

    def _splice(self, pool: PipePool, limit: int) -> tuple[Pumped, int]:
        pipe = self.pipe = self.pipe or pool.take()
        taken = 0
        try:
            while True:
                count = self._fill(pipe, limit - taken)
                taken += count
                if not self._drain(pipe) and not count:
                    self.is_bulk = taken >= _BULK_BYTES_MIN
                    return Pumped.WAITING, taken
                if taken >= _WORK_BYTES_MAX:
                    self.is_bulk = True
                    return Pumped.WORK_CAP, taken
        finally:
            if not pipe.held:
                self.pipe = None
                pool.give_back(pipe)

    def _flush(self, pool: PipePool) -> bool:
        """Move what is on its way, the pipe's bytes before the tail; whether all of it is out."""
        pipe = self.pipe
        if pipe is not None:
            self._drain(pipe)
            if pipe.held:
                return False
            self.pipe = None
            pool.give_back(pipe)
        return self._move_tail()

    def _fill(self, pipe: Pipe, limit: int) -> int:
        if self.is_source_done or limit <= 0:
            return 0
        try:
            count = os.splice(self.source_fd, pipe.write_fd, min(limit, PIPE_BYTES), flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return 0
        if count == 0:
            self.is_source_done = True
        pipe.held += count
        return count

    def _drain(self, pipe: Pipe) -> int:
        if not pipe.held:
            return 0
        try:
            count = os.splice(pipe.read_fd, self.sink_fd, pipe.held, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return 0
        pipe.held -= count
        self.moved += count
        return count

    def _move_tail(self) -> bool:
        """Whether all of the tail is out."""
        try:
            count = os.write(self.sink_fd, self.tail)
        except BlockingIOError:
            return False
        self.moved += count
        self.tail = self.tail[count:]
        return not self.tail

    def send(self, data: bytes) -> bool:
        """Send ``data`` behind what is on its way; whether the sink took all of it. What it did not take is kept."""
        if not self.is_empty:
            self.tail += data
            return False
        self.tail = data
        return self._move_tail()

    def release(self, pool: PipePool) -> None:
        """The flow is over: what is on its way is dropped."""
        if self.pipe is not None:
            pool.give_back(self.pipe)
            self.pipe = None
        self.tail = b""
