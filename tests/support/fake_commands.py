"""Commands and files as an agent has them, by /bin/sh and a dictionary on this machine."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from outgate.client.transport import PeerRefusedError
from outgate.model.desired import ExecutionRequest, ExecutionState
from outgate.model.executions import LogLevel, LogLine, LogPage, LogSource, StdinOutcome, StdinRequest, StdinSignal

AGENT_URL = "unix:/nowhere"
PIECE_BYTES = 7
"""Few, and no power of two: characters are cut."""


@dataclass
class FakeExecution:
    devbox_id: str
    request: ExecutionRequest
    process: asyncio.subprocess.Process | None = None
    output: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    exit_status: int | None = None
    end: asyncio.Task[None] | None = None

    async def run(self) -> None:
        assert self.process is not None
        await asyncio.gather(*(self._collect(name, getattr(self.process, name)) for name in self.output))
        await self.finish(await self.process.wait())

    async def finish(self, status: int) -> None:
        self.exit_status = status if status >= 0 else 128 - status
        async with self.changed:
            self.changed.notify_all()

    async def _collect(self, name: str, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(65536):
            self.output[name] += piece
            async with self.changed:
                self.changed.notify_all()

    def state(self, last_n: int) -> ExecutionState:
        texts, cut = {}, {}
        for name, data in self.output.items():
            lines = data.decode(errors="replace").splitlines(keepends=True)
            kept = lines[len(lines) - min(last_n, len(lines)) :]
            texts[name], cut[name] = "".join(kept), len(kept) < len(lines)
        is_over = self.exit_status is not None
        return ExecutionState(
            self.request.execution_id,
            "completed" if is_over else "running",
            self.exit_status,
            texts["stdout"],
            texts["stderr"],
            cut["stdout"],
            cut["stderr"],
            self.request.shell_name,
        )


class FakeCommands:
    """The part of a gateway that is about commands and files. With ``runs_commands`` off commands end at once, unrun."""

    def __init__(self, *, runs_commands: bool = True) -> None:
        self._runs_commands = runs_commands
        self.starts: dict[str, int] = {}
        self.kills: list[tuple[str, bool]] = []
        self.stdin: list[StdinRequest] = []
        self.stdin_outcome = StdinOutcome(is_delivered=True)
        self.follows = 0
        """Streams that are open now."""
        self.files: dict[tuple[str, str], bytes] = {}
        self.refusal: PeerRefusedError | None = None
        """Raised by whatever is asked next, until it is taken away."""
        self.break_file_after: int | None = None
        self.fail = False
        self._executions: dict[str, FakeExecution] = {}

    async def start_execution(self, url: str, devbox_id: str, request: ExecutionRequest) -> ExecutionState | None:
        self._check(url, devbox_id)
        execution_id = request.execution_id
        self.starts[execution_id] = self.starts.get(execution_id, 0) + 1
        if execution_id not in self._executions:
            execution = self._executions[execution_id] = FakeExecution(devbox_id, request)
            if not self._runs_commands:
                await execution.finish(0)
            else:
                pipe = asyncio.subprocess.PIPE
                execution.process = await asyncio.create_subprocess_shell(
                    request.command,
                    stdin=pipe if request.attach_stdin else asyncio.subprocess.DEVNULL,
                    stdout=pipe,
                    stderr=pipe,
                    start_new_session=True,
                )
                execution.end = asyncio.ensure_future(execution.run())
        return await self.read_execution(url, devbox_id, execution_id, wait_s=0, last_n=100)

    async def read_execution(
        self, url: str, devbox_id: str, execution_id: str, *, wait_s: float, last_n: int
    ) -> ExecutionState | None:
        self._check(url, devbox_id)
        execution = self._executions.get(execution_id)
        if execution is None:
            return None
        if execution.end is not None:
            await asyncio.wait({execution.end}, timeout=wait_s)
        return execution.state(last_n)

    async def kill_execution(
        self, url: str, devbox_id: str, execution_id: str, *, is_group: bool
    ) -> ExecutionState | None:
        self._check(url, devbox_id)
        execution = self._executions.get(execution_id)
        if execution is None:
            return None
        self.kills.append((execution_id, is_group))
        if execution.process is not None and execution.end is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(execution.process.pid, signal.SIGKILL)
            await execution.end
        return execution.state(100)

    async def send_stdin(
        self, url: str, devbox_id: str, execution_id: str, request: StdinRequest
    ) -> StdinOutcome | None:
        self._check(url, devbox_id)
        execution = self._executions.get(execution_id)
        if execution is None:
            return None
        self.stdin.append(request)
        stdin = None if execution.process is None else execution.process.stdin
        if stdin is not None and request.text is not None:
            stdin.write(request.text.encode())
        if stdin is not None and request.signal is StdinSignal.EOF:
            stdin.close()
        return self.stdin_outcome

    @asynccontextmanager
    async def follow_output(
        self, url: str, devbox_id: str, execution_id: str, stream: str, offset: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self._check(url, devbox_id)
        execution = self._executions.get(execution_id)
        if execution is None:
            raise PeerRefusedError("no such execution", status=404, code="execution_not_found")
        self.follows += 1
        try:
            yield self._pieces(execution, stream, offset)
        finally:
            self.follows -= 1

    async def _pieces(self, execution: FakeExecution, stream: str, offset: int) -> AsyncIterator[bytes]:
        data = execution.output[stream]
        while True:
            while offset < len(data):
                piece = bytes(data[offset : offset + PIECE_BYTES])
                offset += len(piece)
                yield piece
                self._check(AGENT_URL, "dbx_")
            if execution.exit_status is not None:
                return
            async with execution.changed:
                await execution.changed.wait()
            self._check(AGENT_URL, "dbx_")

    async def read_logs(
        self, url: str, devbox_id: str, execution_id: str | None, shell_name: str | None
    ) -> LogPage | None:
        self._check(url, devbox_id)
        if execution_id is not None and execution_id not in self._executions:
            return None
        lines = []
        for key, execution in self._executions.items():
            is_own = execution.devbox_id == devbox_id
            if is_own and execution_id in (None, key) and shell_name in (None, execution.request.shell_name):
                made = {"source": LogSource.EXEC, "level": LogLevel.INFO, "time_ms": 1, "cmd_id": key}
                lines.append(LogLine(**made, cmd=execution.request.command))  # type: ignore[arg-type] # its fields
                text = execution.output["stdout"].decode(errors="replace")
                lines += [LogLine(**made, message=line) for line in text.splitlines()]  # type: ignore[arg-type] # its fields
        return LogPage(tuple(lines))

    @asynccontextmanager
    async def read_file(self, url: str, devbox_id: str, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self._check(url, devbox_id)
        data = self.files.get((devbox_id, path))
        if data is None:
            raise PeerRefusedError(f"There is no {path}.", status=422, code="file_not_found")
        self.follows += 1
        try:
            yield self._file_pieces(data)
        finally:
            self.follows -= 1

    async def _file_pieces(self, data: bytes) -> AsyncIterator[bytes]:
        size = max(PIECE_BYTES, len(data) // 1000)
        for start in range(0, len(data), size):
            if self.break_file_after is not None and start >= self.break_file_after:
                raise ConnectionResetError
            yield data[start : start + size]

    async def write_file(self, url: str, devbox_id: str, path: str, data: AsyncIterator[bytes]) -> None:
        self._check(url, devbox_id)
        pieces = [piece async for piece in data]
        self.files[devbox_id, path] = b"".join(pieces)

    def _check(self, url: str, devbox_id: str) -> None:
        assert url == AGENT_URL
        assert devbox_id.startswith("dbx_")
        if self.fail:
            raise ConnectionRefusedError
        if self.refusal is not None:
            raise self.refusal
