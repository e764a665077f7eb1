"""Pipes for ``splice``: big, pooled, and in a flow's hands only while bytes are in them.

A pipe costs two descriptors and, filled, a mebibyte of kernel memory; five thousand idle flows therefore
share none at all.
"""

import fcntl
import os
from contextlib import suppress
from typing import Final

PIPE_BYTES: Final = 1 << 20
"""As much as the kernel grants without privilege (fs.pipe-max-size)."""
_POOL_MAX: Final = 64
"""Empty pipes kept. The kernel gives a user 64 of this size (fs.pipe-user-pages-soft) and then only small ones."""


class Pipe:
    """One pipe. ``held`` counts the bytes in it."""

    __slots__ = ("held", "read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.held = 0

    def close(self) -> None:
        """Give the descriptors back; what is in the pipe is gone."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Lends empty pipes."""

    __slots__ = ("_idle",)

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def take(self) -> Pipe:
        """An empty pipe. Raises OSError (EMFILE, ENFILE) when there is none and none can be made."""
        if self._idle:
            return self._idle.pop()
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(PermissionError):  # beyond the user's share the pipe stays small: slower, not wrong
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return Pipe(read_fd, write_fd)

    def give_back(self, pipe: Pipe) -> None:
        """Take ``pipe`` again. One that still holds bytes is destroyed: they belong to a flow that ended."""
        if pipe.held or len(self._idle) >= _POOL_MAX:
            pipe.close()
        else:
            self._idle.append(pipe)

    def close(self) -> None:
        """Give all descriptors back."""
        while self._idle:
            self._idle.pop().close()
