"""Commands that the agent itself runs in a devbox: while it starts, and before it is suspended."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from outgate.runtime.base import ExecSpec, ExecState, ExecStatus, OutputStream, Runtime, SandboxError, StdinMode

AGENT_EXECUTIONS: Final = ("launch-", "entrypoint-", "mount-", "suspend-")
"""How the ids of the agent's own executions begin. Those of the API's begin otherwise."""
_WAIT_S: Final = 60.0
_STDERR_LINES: Final = 5
_FEED_LOOK_S: Final = 1.0
"""How often a command that does not read is asked after: only one that hangs or has ended does not."""


class BootInterruptedError(Exception):
    """Something else is wanted of the devbox now; whoever reconciles it decides what."""


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """How a command ended, and the last lines of its complaints."""

    exit_status: int | None
    stderr: str


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs commands of one devbox to their end.

    ``interruption`` is set when something about the devbox changed; ``is_wanted`` says whether to go on then.
    All methods raise :class:`SandboxError`, and :class:`BootInterruptedError` when it is not.
    """

    runtime: Runtime
    devbox_id: str
    interruption: asyncio.Event
    is_wanted: Callable[[], bool]

    async def run(self, spec: ExecSpec) -> CommandEnd:
        """Run ``spec`` to its end."""
        await self.runtime.exec_start(self.devbox_id, spec)
        return await self._end_of(spec.execution_id)

    async def feed(self, spec: ExecSpec, data: AsyncIterable[bytes]) -> CommandEnd:
        """The same, with ``data`` as its standard input. A command that does not read it all is not to blame for that.

        Raises what ``data`` raises; the command is killed then.
        """
        await self.runtime.exec_start(self.devbox_id, replace(spec, stdin=StdinMode.PIPE))
        try:
            await self._write(spec.execution_id, data)
        except BaseException:
            with contextlib.suppress(SandboxError):
                await self.runtime.exec_kill(self.devbox_id, spec.execution_id)
            raise
        await self.runtime.exec_close_stdin(self.devbox_id, spec.execution_id)
        return await self._end_of(spec.execution_id)

    async def _write(self, execution_id: str, data: AsyncIterable[bytes]) -> None:
        async for chunk in data:
            if not self.is_wanted():
                raise BootInterruptedError
            try:
                await self._unless_over(execution_id, chunk)
            except SandboxError:
                return  # it has ended, or closed its input: its status says whether that was well

    async def _unless_over(self, execution_id: str, chunk: bytes) -> None:
        """Write ``chunk``, which may have to wait for a reader that never comes: the command's end ends it too."""
        writing = asyncio.ensure_future(self.runtime.exec_write_stdin(self.devbox_id, execution_id, chunk))
        try:
            while not writing.done():
                await asyncio.wait((writing,), timeout=_FEED_LOOK_S)
                if not writing.done() and not await self._still_runs(execution_id):
                    raise SandboxError("The command ended before it had read its input.")
            await writing
        finally:
            writing.cancel()

    async def _still_runs(self, execution_id: str) -> bool:
        if not self.is_wanted():
            raise BootInterruptedError
        state = await self.runtime.exec_state(self.devbox_id, execution_id)
        return state.status is not ExecStatus.COMPLETED

    async def _end_of(self, execution_id: str) -> CommandEnd:
        while True:
            state = await self._unless_interrupted(self.runtime.exec_wait(self.devbox_id, execution_id, _WAIT_S))
            self.interruption.clear()
            if not self.is_wanted():
                raise BootInterruptedError
            if state is not None and state.status is ExecStatus.COMPLETED:
                break
        if state.exit_status == 0:
            return CommandEnd(0, "")
        said = await self.runtime.exec_output(self.devbox_id, execution_id, OutputStream.STDERR, _STDERR_LINES)
        return CommandEnd(state.exit_status, said.text)

    async def _unless_interrupted(self, work: Awaitable[ExecState]) -> ExecState | None:
        """What ``work`` gives, or None when the interruption comes first."""
        waiting = asyncio.ensure_future(self.interruption.wait())
        working = asyncio.ensure_future(work)
        try:
            await asyncio.wait((waiting, working), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            for task in (waiting, working):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
