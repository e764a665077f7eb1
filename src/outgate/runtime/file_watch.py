"""Files that grow, and who waits for that: one inotify(7) instance for all of them, in the event loop.

Without it a stream that waits for a silent program would have to look again and again.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY: Final = 0x2
_EVENT: Final = struct.Struct("iIII")
_READ_BYTES: Final = 65536
"""Events name no files (files themselves are watched), so each has 16 bytes."""


class FileWatch:
    """Belongs to one event loop. The kernel's object is made with the first file that is watched."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._waiters: dict[int, set[asyncio.Event]] = {}

    @contextmanager
    def watching(self, file: Path) -> Iterator[asyncio.Event]:
        """An event that is set whenever ``file`` was written to, for the length of the block. Raises OSError."""
        self._ensure_open()
        # The same file gives the same number again, however often it is watched.
        number = int(_LIBC.inotify_add_watch(self._descriptor, os.fsencode(file), ctypes.c_uint32(_IN_MODIFY)))
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(file))
        event = asyncio.Event()
        self._waiters.setdefault(number, set()).add(event)
        try:
            yield event
        finally:
            self._forget(number, event)

    def close(self) -> None:
        """Stop watching; nobody is woken any more. May be called twice."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._waiters.clear()

    def _ensure_open(self) -> None:
        if self._descriptor < 0:
            self._descriptor = int(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
            if self._descriptor < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), "inotify_init1")
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def _forget(self, number: int, event: asyncio.Event) -> None:
        waiters = self._waiters.get(number)
        if waiters is None:
            return
        waiters.discard(event)
        if not waiters:
            del self._waiters[number]
            # The kernel has dropped the watch by itself where the file is gone.
            _LIBC.inotify_rm_watch(self._descriptor, number)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            data = os.read(self._descriptor, _READ_BYTES)
            for number, *_ in _EVENT.iter_unpack(data):
                # Number -1: more happened than the kernel's queue holds, so anything may have changed.
                woken = self._waiters.get(number, ()) if number >= 0 else set().union(*self._waiters.values())
                for event in woken:
                    event.set()
