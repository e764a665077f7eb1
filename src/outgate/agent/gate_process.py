"""The gate as a child process: start, frames, restart with back-off.

What matters for safety is the word *closed*: the gate is closed when it certainly allows nothing, because
its process is gone (reaped, so its sockets are closed and the flows it relayed are reset) or because it was
never given a table. A gate that does not answer in time is killed and reaped before anybody is told that it
is closed. An update may therefore count as enforced while the gate is closed: nothing can pass by name, and
when the gate opens again, the first table it gets is the newest one.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Final

import structlog

from outgate.dataplane.gate_config import GateConfig
from outgate.dataplane.gate_control import ControlError, decode_from_gate, encode_frame
from outgate.errors import OutgateError
from outgate.model.desired import GateApplied, GateApply, GateReady, GateRecords, GateToAgent, GateWarning
from outgate.model.measures import GateMeasures

READY_WAIT_S: Final = 10.0
"""Interpreter start and imports take 0.3 s on an idle machine; ten such machines share one in tests."""
APPLY_WAIT_S: Final = 3.0
"""Judging 10,000 relayed flows again takes some 0.1 s; a gate that needs longer hangs."""
CHECK_WAIT_S: Final = 10.0
"""Nobody waits for this answer, so that a gate on a busy host may take longer before it counts as hanging."""
_RESTART_DELAYS_S: Final = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
_STABLE_AFTER_S: Final = 30.0
"""A gate that lived this long died of something new: begin again with the shortest delay."""
_FRAME_BYTES_MAX: Final = 1 << 20
"""The largest frame that a gate sends is a batch of 512 records, some 200 KiB."""
_LENGTH_BYTES: Final = 4


class GateClosedError(OutgateError):
    """The gate certainly allows nothing right now (see the module's text)."""

    code = "gate_closed"


class GateState(Enum):
    """Where the gate process is."""

    CLOSED = auto()
    OPEN = auto()


GateCommand = Callable[[int], Sequence[str]]
"""Control descriptor (inherited by the child) → argument list."""


def gate_command(control_descriptor: int) -> tuple[str, ...]:
    """How this installation's gate is started."""
    return (sys.executable, "-m", "outgate.dataplane.gate", "--control-fd", str(control_descriptor))


class GateEvents:
    """What a gate process has to say; the agent overrides what it wants to hear."""

    def on_open(self) -> None:
        """The gate listens and has an empty table: give it everything."""

    def on_closed(self, why: str) -> None:
        """The gate is closed; it is being started again."""

    def on_records(self, batch: GateRecords) -> None:
        """Decisions were carried out."""

    def on_measures(self, measures: GateMeasures) -> None:
        """What the gate counted since its start."""

    def on_warning(self, warning: GateWarning) -> None:
        """Something in the gate is degraded, or well again."""


class GateProcess:
    """One gate and its successors. ``epoch`` counts them: a higher one has forgotten its table."""

    def __init__(
        self, config: Callable[[], GateConfig], events: GateEvents, command: GateCommand = gate_command
    ) -> None:
        """``config`` is asked at each start: the host's resolvers may be others by then."""
        self._config = config
        self._command = command
        self._events = events
        self._log = structlog.get_logger("gate_process")
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._answer: asyncio.Future[GateApplied] | None = None
        self._turn = asyncio.Lock()
        self.state = GateState.CLOSED
        self.epoch = 0

    async def run(self) -> None:
        """Keep a gate running until cancelled; ends with the gate gone."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            await asyncio.sleep(_RESTART_DELAYS_S[min(failures, len(_RESTART_DELAYS_S) - 1)])
            started_s = loop.time()
            why = await self._live_once()
            failures = 1 if loop.time() - started_s > _STABLE_AFTER_S else failures + 1
            self._log.warning("gate_closed", why=why, epoch=self.epoch)
            self._events.on_closed(why)

    async def apply(self, frame: GateApply) -> GateApplied:
        """Put a table in force. Raises :class:`GateClosedError` when the gate is closed, now or because of this.

        One frame at a time: the answer belongs to the frame before it.
        """
        async with self._turn:
            return await self._exchange(frame, APPLY_WAIT_S)

    async def check(self, epoch: int) -> None:
        """See that the gate of ``epoch`` answers. It must have a table. Raises as :meth:`apply`."""
        if self._turn.locked():
            return  # somebody waits for its answer already
        async with self._turn:
            if epoch == self.epoch:
                await self._exchange(GateApply(revision=0, full=False), CHECK_WAIT_S)

    async def _exchange(self, frame: GateApply, wait_s: float) -> GateApplied:
        if self.state is GateState.CLOSED or self._writer is None:
            raise GateClosedError("the gate is not running")
        epoch = self.epoch
        self._answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(wait_s):
                self._writer.write(encode_frame(frame))
                await self._writer.drain()
                applied = await self._answer
        except (TimeoutError, OSError) as error:
            await self._kill(epoch)
            raise GateClosedError("the gate did not answer and was killed") from error
        finally:
            self._answer = None
        if applied.error is not None:
            # A table that was refused leaves the old one in force: that gate must not go on.
            await self._kill(epoch)
            raise GateClosedError(f"the gate refused its table and was killed: {applied.error}")
        return applied

    def restart(self) -> None:
        """End the gate, so that another is started. Does nothing when none runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _kill(self, epoch: int) -> None:
        """End the gate of ``epoch`` and wait until it is gone."""
        process = self._process
        if process is None or epoch != self.epoch:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _live_once(self) -> str:
        """Start a gate and serve its frames until it ends; returns how it ended, with the process reaped."""
        try:
            config = self._config()
        except OutgateError as error:
            return f"it cannot be configured: {error.message}"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command(theirs.fileno()), pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL
                )
        except OSError as error:
            ours.close()
            return f"it could not be started: {error}"
        self.epoch += 1
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        process, writer = self._process, self._writer
        try:
            writer.write(encode_frame(config))
            return await self._serve(reader, process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.shield(process.wait())
            # Not before: a gate that hangs, or has merely closed its control socket, may still relay.
            self.state = GateState.CLOSED
            writer.close()
            self._fail_answer()

    def _fail_answer(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(GateClosedError("the gate died"))

    async def _serve(self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> str:
        try:
            async with asyncio.timeout(READY_WAIT_S):
                first = await _read_frame(reader)
            if not isinstance(first, GateReady):
                return f"its first word was {type(first).__name__}"
            self.state = GateState.OPEN
            self._log.info("gate_open", epoch=self.epoch, pid=process.pid, relay_port=first.relay_port)
            self._events.on_open()
            while True:
                self._take(await _read_frame(reader))
        except TimeoutError:
            return f"it was not ready within {READY_WAIT_S:g} s"
        except ControlError as error:
            return f"it broke the protocol: {error.message}"
        except (asyncio.IncompleteReadError, ConnectionError):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await process.wait()
            return _ending_of(process)

    def _take(self, frame: GateToAgent) -> None:
        match frame:
            case GateApplied():
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(frame)
            case GateRecords():
                self._events.on_records(frame)
            case GateMeasures():
                self._events.on_measures(frame)
            case GateWarning():
                self._events.on_warning(frame)
            case GateReady():
                self._log.warning("gate_ready_twice", epoch=self.epoch)


def _ending_of(process: asyncio.subprocess.Process) -> str:
    code = process.returncode
    if code is None:
        return "it closed its control socket"
    return f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}"


async def _read_frame(reader: asyncio.StreamReader) -> GateToAgent:
    """The next frame. Raises :class:`ControlError` for one that makes no sense, IncompleteReadError at the end."""
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    if length > _FRAME_BYTES_MAX:
        raise ControlError(f"a frame of {length} bytes was announced; {_FRAME_BYTES_MAX} are taken.")
    return decode_from_gate(await reader.readexactly(length))
