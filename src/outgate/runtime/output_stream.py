"""One stream of one execution from some byte on, while it grows and afterwards, a piece at a time."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from outgate.runtime.file_watch import FileWatch

PIECE_BYTES_MAX: Final = 64 * 1024
"""What is in memory of a stream at once, for each of those who read it."""


async def follow_file(
    file: Path, offset: int, end: asyncio.Future[None], settle: Callable[[], Awaitable[None]], tools: "FollowTools"
) -> AsyncGenerator[bytes, None]:
    """The bytes of ``file`` from ``offset`` on, as they come, until ``end`` is done and all of them were given.

    ``settle`` is awaited after the end: until what was written has arrived in the file. What is appended later
    than that is not waited for. Nothing is read ahead of whoever takes the pieces.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with tools.watch.watching(file) as changed:
            wake = _waker(changed)
            end.add_done_callback(wake)
            try:
                while not end.done():
                    changed.clear()
                    while not end.done() and (piece := await tools.read(descriptor, PIECE_BYTES_MAX, offset)):
                        offset += len(piece)
                        yield piece
                    if not end.done():
                        await changed.wait()
            finally:
                end.remove_done_callback(wake)
        await settle()
        size = os.fstat(descriptor).st_size
        while offset < size and (piece := await tools.read(descriptor, min(PIECE_BYTES_MAX, size - offset), offset)):
            offset += len(piece)
            yield piece
    finally:
        os.close(descriptor)


def _waker(event: asyncio.Event) -> Callable[[object], None]:
    def wake(_: object) -> None:
        event.set()

    return wake


class FollowTools:
    """What all streams of a host share: who tells that a file grew, and the threads that read."""

    def __init__(self, watch: FileWatch, readers: Executor) -> None:
        self.watch = watch
        self._readers = readers

    async def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """What pread(2) gives. In a thread: a disk may be slow, and the loop serves others."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, os.pread, descriptor, length, offset)
