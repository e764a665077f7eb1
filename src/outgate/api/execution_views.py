"""Answers of the execution routes."""

import msgspec

from outgate.control.executions import ExecutionStatus
from outgate.model.desired import ExecutionState


class DevboxAsyncExecutionDetailView(msgspec.Struct, frozen=True):
    """An execution. ``exit_status`` is null until it is completed; output is the last lines of it."""

    devbox_id: str
    execution_id: str
    status: ExecutionStatus
    exit_status: int | None
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    shell_name: str | None


class DevboxExecutionDetailView(msgspec.Struct, frozen=True):
    """A command that ran to its end."""

    devbox_id: str
    exit_status: int
    stdout: str
    stderr: str
    shell_name: str | None = None


class DevboxSendStdInResult(msgspec.Struct, frozen=True):
    """``success``: all of it is where the program reads. If not, ``message`` says why."""

    devbox_id: str
    execution_id: str
    success: bool
    message: str | None


class ExecutionUpdateChunk(msgspec.Struct, frozen=True):
    """A piece of output, and the byte that follows it: the offset from which a stream goes on after this piece."""

    output: str
    offset: int


def view_execution(devbox_id: str, state: ExecutionState) -> DevboxAsyncExecutionDetailView:
    """The view of an execution."""
    return DevboxAsyncExecutionDetailView(
        devbox_id=devbox_id,
        execution_id=state.execution_id,
        status=ExecutionStatus(state.status),
        exit_status=state.exit_status,
        stdout=state.stdout,
        stderr=state.stderr,
        stdout_truncated=state.stdout_truncated,
        stderr_truncated=state.stderr_truncated,
        shell_name=state.shell_name,
    )


def view_completed(devbox_id: str, state: ExecutionState) -> DevboxExecutionDetailView:
    """The view of a command that ran to its end; -1 when nobody knows how it ended."""
    exit_status = -1 if state.exit_status is None else state.exit_status
    return DevboxExecutionDetailView(devbox_id, exit_status, state.stdout, state.stderr, state.shell_name)
