"""What the channels of an SSH connection share: bytes both ways, each side waiting for the other."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import asyncssh

from outgate.control.terminal_access import TerminalActivity, TerminalPlace

INPUT_BYTES_MAX: Final = 256 * 1024
"""Unread input at which the client is told to wait. The window it was given, WINDOW_BYTES, may come on top."""
OUTPUT_BYTES_MAX: Final = 256 * 1024
"""Unsent output at which the devbox is made to wait."""
WINDOW_BYTES: Final = 512 * 1024
"""A megabit for each millisecond of the way; asyncssh's own default is four times that."""


class Works:
    """What goes on for the open channels, so that a server that ends can wait for its end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Do ``work`` in a task."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end(self) -> None:
        """Cancel all of it, and wait until it has cleaned up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class ChannelNeeds:
    """What a channel works with. ``on_lost`` is called once, when it is gone."""

    place: TerminalPlace
    activity: TerminalActivity
    works: Works
    on_lost: Callable[[], None]


class ChannelFlow:
    """The part of a channel's session that moves bytes; asyncssh calls what is public here."""

    def __init__(self, needs: ChannelNeeds) -> None:
        self.needs = needs
        self.work: asyncio.Future[None] | None = None
        self._is_cleaning_up = False
        self.channel: Any = None  # the channel classes of asyncssh share no base that has all of their methods
        self._input: deque[bytes] = deque()
        self._input_bytes = 0
        self._is_paused = False
        self._is_ended = False
        self._has_input = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def connection_made(self, chan: Any) -> None:
        """The channel is open."""
        self.channel = chan
        chan.set_write_buffer_limits(OUTPUT_BYTES_MAX)

    def data_received(self, data: bytes, datatype: Any) -> None:
        """Input came."""
        del datatype  # clients have one stream
        self._input.append(data)
        self._input_bytes += len(data)
        self._has_input.set()
        if self._input_bytes >= INPUT_BYTES_MAX and not self._is_paused:
            self._is_paused = True
            self.channel.pause_reading()

    def eof_received(self) -> bool:
        """Input ended; output goes on."""
        self._is_ended = True
        self._has_input.set()
        return True

    def pause_writing(self) -> None:
        """Too much output is unsent."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """There is room again."""
        self._has_room.set()

    async def receive(self) -> bytes:
        """The next input; empty at its end."""
        while not self._input:
            if self._is_ended:
                return b""
            self._has_input.clear()
            await self._has_input.wait()
        data = self._input.popleft()
        self._input_bytes -= len(data)
        if self._is_paused and self._input_bytes < INPUT_BYTES_MAX // 2:
            self._is_paused = False
            self.channel.resume_reading()
        return data

    async def send(self, data: bytes, *, is_stderr: bool = False) -> None:
        """Send output, once there is room. Raises OSError when the channel is closed."""
        await self._has_room.wait()
        self.channel.write(data, asyncssh.EXTENDED_DATA_STDERR if is_stderr else None)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` until the channel is gone."""
        self.work = self.needs.works.start(work)

    def note_use(self) -> None:
        """Bytes went one way or the other."""
        self.needs.activity.note(self.needs.place.devbox_id)

    def begin_cleanup(self) -> None:
        """The work is over but for its cleanup, which is not to be broken off."""
        self._is_cleaning_up = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone: so is the work, and whoever waits for room finds out by writing."""
        del exc
        self._is_ended = True
        self._has_input.set()
        self._has_room.set()
        self.needs.on_lost()
        if self.work is not None and not self._is_cleaning_up:
            self.work.cancel()
