"""What goes into an execution: bytes, their end, and Control-C."""

import asyncio
import os
import signal
from contextlib import suppress

from outgate.runtime.base import StdinNotAttachedError, StdinUnreadError
from outgate.runtime.execution_files import ExecutionFiles, SandboxPlace
from outgate.runtime.proc import is_alive, open_if_alive
from outgate.runtime.pumps import Pumps, open_stdin


async def write_stdin(place: SandboxPlace, files: ExecutionFiles, data: bytes) -> None:
    """See :meth:`outgate.runtime.base.Runtime.exec_write_stdin`."""
    holder = _attached(files).stdin
    pipe = None if holder is None or not _is_running(place, files) else open_stdin(holder)
    if pipe is None:
        raise StdinUnreadError("The execution's standard input was closed before, or its command has ended.")
    try:
        await write_all(pipe, data)
    except BrokenPipeError:
        raise StdinUnreadError("The execution does not read its standard input any more.") from None
    finally:
        os.close(pipe)


def close_stdin(place: SandboxPlace, files: ExecutionFiles) -> None:
    """See :meth:`outgate.runtime.base.Runtime.exec_close_stdin`. Blocks."""
    end_stdin(place, _attached(files))


def interrupt(place: SandboxPlace, files: ExecutionFiles) -> None:
    """See :meth:`outgate.runtime.base.Runtime.exec_interrupt`. Blocks."""
    _attached(files)
    process = files.find_recorded_process()
    alive = None if process is None else open_if_alive(process, place.group)
    if process is None or alive is None:
        raise StdinUnreadError("The execution's command has ended.")
    try:
        # While the group's leader lives, held by its pidfd, its number cannot name another group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    finally:
        os.close(alive)


def end_stdin(place: SandboxPlace, pumps: Pumps) -> None:
    """End of input, if it was not reached before."""
    holder = None if pumps.stdin is None else open_if_alive(pumps.stdin, place.group)
    if holder is not None:
        signal.pidfd_send_signal(holder, signal.SIGKILL)
        os.close(holder)


async def write_all(pipe: int, data: bytes) -> None:
    """Write to a non-blocking pipe, waiting while it is full. Raises BrokenPipeError when nobody reads."""
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(pipe, rest) :]
        except BlockingIOError:
            room = loop.create_future()
            loop.add_writer(pipe, _set_done, room)
            try:
                await room
            finally:
                loop.remove_writer(pipe)


def _attached(files: ExecutionFiles) -> Pumps:
    if files.is_queued():
        raise StdinUnreadError("The command waits for its turn in its shell; nothing reads its input yet.")
    pumps = files.read_pumps()
    if pumps is None or pumps.stdin is None:
        raise StdinNotAttachedError("The execution was started without a standard input; start it with attach_stdin.")
    return pumps


def _is_running(place: SandboxPlace, files: ExecutionFiles) -> bool:
    process = files.find_recorded_process()
    return process is not None and is_alive(process, place.group)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
