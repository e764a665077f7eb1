"""Executions in devboxes: the runtime's, with output, in the words of the agent's interface."""

import asyncio
from typing import Final

from outgate.model.desired import ExecutionRequest, ExecutionState
from outgate.runtime.base import ExecSpec, ExecState, ExecStatus, OutputStream, Runtime, StdinMode

LAST_LINES_DEFAULT: Final = 100
LAST_LINES_MAX: Final = 10_000
WAIT_S_MAX: Final = 30.0


class Executions:
    """Starts, reads and kills executions. A thin shell over the runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def start(self, devbox_id: str, request: ExecutionRequest) -> ExecutionState:
        """The execution after its process was started, or as it is if it was started before.

        Raises :class:`SandboxNotFoundError` and :class:`SandboxError`.
        """
        spec = ExecSpec(
            execution_id=request.execution_id,
            command=request.command,
            stdin=StdinMode.PIPE if request.attach_stdin else StdinMode.NULL,
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

    async def kill(self, devbox_id: str, execution_id: str) -> ExecutionState:
        """Kill the execution; its state a moment later. Raises :class:`ExecutionNotFoundError`."""
        await self._runtime.exec_kill(devbox_id, execution_id)
        return await self.read(devbox_id, execution_id, wait_s=1.0, last_n=LAST_LINES_DEFAULT)

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
        )
