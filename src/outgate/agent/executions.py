"""Executions in devboxes: the runtime's, with output, in the words of the agent's interface."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from outgate.agent.commands import AGENT_EXECUTIONS
from outgate.agent.stdin_sender import StdinSender
from outgate.errors import InvalidValueError
from outgate.model.desired import DevboxActivity, ExecutionRequest, ExecutionState
from outgate.model.executions import LogLine, StdinOutcome, StdinRequest
from outgate.runtime.base import ExecSpec, ExecState, ExecStatus, KillScope, OutputStream, Runtime, StdinMode

LAST_LINES_DEFAULT: Final = 100
LAST_LINES_MAX: Final = 10_000
WAIT_S_MAX: Final = 30.0


class Executions:
    """Starts, reads and kills executions. A thin shell over the runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stdin = StdinSender(runtime)

    async def start(self, devbox_id: str, request: ExecutionRequest) -> ExecutionState:
        """The execution after its process was started, or as it is if it was started before.

        Raises :class:`SandboxNotFoundError` and :class:`SandboxError`.
        """
        spec = ExecSpec(
            execution_id=request.execution_id,
            command=request.command,
            stdin=StdinMode.PIPE if request.attach_stdin else StdinMode.NULL,
            shell=request.shell_name,
        )
        await self._runtime.exec_start(devbox_id, spec)
        return await self.read(devbox_id, request.execution_id, wait_s=0, last_n=LAST_LINES_DEFAULT)

    async def read(self, devbox_id: str, execution_id: str, *, wait_s: float, last_n: int) -> ExecutionState:
        """The execution once completed, or as it is after ``wait_s``, with its last lines of output.

        Raises :class:`ExecutionNotFoundError`.
        """
        wait_s = min(max(wait_s, 0.0), WAIT_S_MAX)
        state = await (
            self._runtime.exec_wait(devbox_id, execution_id, wait_s)
            if wait_s
            else self._runtime.exec_state(devbox_id, execution_id)
        )
        return await self._with_output(devbox_id, state, min(max(last_n, 0), LAST_LINES_MAX))

    async def follow(
        self, devbox_id: str, execution_id: str, stream: OutputStream, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """See :meth:`outgate.runtime.base.Runtime.exec_stream`. Raises InvalidValueError for an offset before 0."""
        if offset < 0:
            raise InvalidValueError("offset is a byte position from 0 on.", field="offset")
        return await self._runtime.exec_stream(devbox_id, execution_id, stream, offset)

    async def read_logs(self, devbox_id: str, execution_id: str | None, shell_name: str | None) -> tuple[LogLine, ...]:
        """See :meth:`outgate.runtime.base.Runtime.exec_logs`."""
        return await self._runtime.exec_logs(devbox_id, execution_id, shell_name)

    async def send_stdin(self, devbox_id: str, execution_id: str, request: StdinRequest) -> StdinOutcome:
        """Hand text or a signal to the execution; once for each ``request_id``, one after the other.

        Raises :class:`ExecutionNotFoundError` and :class:`StdinNotAttachedError`.
        """
        return await self._stdin.send(devbox_id, execution_id, request)

    async def kill(self, devbox_id: str, execution_id: str, *, is_group: bool) -> ExecutionState:
        """Kill the execution; its state a moment later. Raises :class:`ExecutionNotFoundError`."""
        scope = KillScope.GROUP if is_group else KillScope.COMMAND
        await self._runtime.exec_kill(devbox_id, execution_id, scope)
        return await self.read(devbox_id, execution_id, wait_s=1.0, last_n=LAST_LINES_DEFAULT)

    async def read_activity(self, devbox_id: str) -> DevboxActivity:
        """How many executions run, and when the last one ended; those that the agent itself began do not count."""
        ends = await self._runtime.exec_ends(devbox_id)
        own = [end for execution_id, end in ends.items() if not execution_id.startswith(AGENT_EXECUTIONS)]
        over = [end for end in own if end is not None]
        return DevboxActivity(running=len(own) - len(over), last_end_ms=max(over, default=None))

    async def _with_output(self, devbox_id: str, state: ExecState, last_n: int) -> ExecutionState:
        stdout, stderr = await asyncio.gather(
            self._runtime.exec_output(devbox_id, state.execution_id, OutputStream.STDOUT, last_n),
            self._runtime.exec_output(devbox_id, state.execution_id, OutputStream.STDERR, last_n),
        )
        is_completed = state.status is ExecStatus.COMPLETED
        return ExecutionState(
            execution_id=state.execution_id,
            status=state.status.value,
            exit_status=state.exit_status if is_completed else None,
            stdout=stdout.text,
            stderr=stderr.text,
            stdout_truncated=stdout.truncated,
            stderr_truncated=stderr.truncated,
            shell_name=state.shell,
        )
