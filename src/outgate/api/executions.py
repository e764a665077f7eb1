"""``/v1/devboxes/{id}/execute*`` and ``/v1/devboxes/{devbox_id}/executions``."""

from collections.abc import AsyncGenerator
from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from outgate.api.context import Context, RequestContext
from outgate.api.event_streams import respond_events
from outgate.api.execution_bodies import (
    DevboxExecuteAsyncParams,
    DevboxExecuteParams,
    DevboxExecuteSyncParams,
    DevboxWaitForCommandParams,
    ExecutionKillParams,
    ExecutionSendStdInParams,
)
from outgate.api.execution_views import (
    DevboxAsyncExecutionDetailView,
    DevboxExecutionDetailView,
    DevboxSendStdInResult,
    ExecutionUpdateChunk,
    view_completed,
    view_execution,
)
from outgate.api.openapi import MediaType, describe, describe_bytes
from outgate.api.responses import respond
from outgate.control.executions import (
    LAST_N_DEFAULT,
    LAST_N_MAX,
    StdinInput,
    await_execution,
    execute,
    execute_to_end,
    get_execution,
    kill_execution,
    send_stdin,
    start_execution,
)
from outgate.control.output_streams import OFFSET_MAX, OutputName, OutputPiece, open_output

router: Final = APIRouter(prefix="/v1/devboxes", tags=["executions"])

Offset = Annotated[int, Query(ge=0, le=OFFSET_MAX, description="The byte from which the stream goes on.")]
LastN = Annotated[int, Query(ge=0, description=f"Lines of output to answer, {LAST_N_MAX} at most.")]


@router.post(
    "/{id}/execute",
    operation_id="executeCommand",
    summary="Run a command, once for each command_id",
    openapi_extra=describe(DevboxAsyncExecutionDetailView, body=DevboxExecuteParams, errors=[404, 408, 409, 429]),
)
async def execute_once(context: Context, id: str, last_n: LastN = LAST_N_DEFAULT) -> Response:  # noqa: A002 - the wire's name
    """Answers when the command is completed, or as ``running`` after the hold."""
    given, call = await context.read(DevboxExecuteParams)
    work = execute(
        context.services,
        call,
        id,
        given.given(),
        command_id=given.command_id,
        hold_s=given.hold_s(),
        last_n=min(last_n, LAST_N_MAX),
    )
    return respond(view_execution(id, await context.while_connected(work)))


@router.post(
    "/{id}/execute_async",
    operation_id="executeCommandAsync",
    summary="Start a command",
    openapi_extra=describe(DevboxAsyncExecutionDetailView, body=DevboxExecuteAsyncParams, errors=[404, 409]),
)
async def execute_async(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Answers at once."""
    given, call = await context.read(DevboxExecuteAsyncParams)
    state = await start_execution(context.services, call, id, given.given())
    return respond(view_execution(id, state))


@router.post(
    "/{id}/execute_sync",
    operation_id="executeCommandSync",
    summary="Run a command to its end",
    openapi_extra=describe(DevboxExecutionDetailView, body=DevboxExecuteSyncParams, errors=[404, 408, 409, 429]),
)
async def execute_sync(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Holds for as long as the command runs, ten minutes at most."""
    given, call = await context.read(DevboxExecuteSyncParams)
    work = execute_to_end(context.services, call, id, given.given())
    return respond(view_completed(id, await context.while_connected(work)))


@router.get(
    "/{devbox_id}/executions/{execution_id}",
    operation_id="getExecution",
    summary="Read an execution",
    openapi_extra=describe(DevboxAsyncExecutionDetailView, errors=[404]),
)
async def get(context: Context, devbox_id: str, execution_id: str, last_n: LastN = LAST_N_DEFAULT) -> Response:
    """The execution as it is."""
    state = await get_execution(
        context.services, context.caller, devbox_id, execution_id, last_n=min(last_n, LAST_N_MAX)
    )
    return respond(view_execution(devbox_id, state))


@router.post(
    "/{devbox_id}/executions/{execution_id}/wait_for_status",
    operation_id="waitForExecution",
    summary="Wait until the execution is in one of some statuses",
    openapi_extra=describe(DevboxAsyncExecutionDetailView, body=DevboxWaitForCommandParams, errors=[404, 408, 429]),
)
async def wait_for_status(
    context: Context, devbox_id: str, execution_id: str, last_n: LastN = LAST_N_DEFAULT
) -> Response:
    """At once when it already is; else 408, with ``x-should-retry: true``, after the time asked for."""
    given, _ = await context.read(DevboxWaitForCommandParams)
    work = await_execution(
        context.services,
        context.caller,
        devbox_id,
        execution_id,
        frozenset(given.statuses),
        timeout_s=given.timeout_s(),
        last_n=min(last_n, LAST_N_MAX),
    )
    return respond(view_execution(devbox_id, await context.while_connected(work)))


@router.post(
    "/{devbox_id}/executions/{execution_id}/kill",
    operation_id="killExecution",
    summary="Kill an execution",
    openapi_extra=describe(
        DevboxAsyncExecutionDetailView, body=ExecutionKillParams, is_body_optional=True, errors=[404]
    ),
)
async def kill(context: Context, devbox_id: str, execution_id: str) -> Response:
    """The command itself, or all of its process group."""
    given, _ = await context.read(ExecutionKillParams)
    is_group = given.kill_process_group or False
    state = await kill_execution(context.services, context.caller, devbox_id, execution_id, is_group=is_group)
    return respond(view_execution(devbox_id, state))


@router.post(
    "/{devbox_id}/executions/{execution_id}/send_std_in",
    operation_id="sendStdIn",
    summary="Type into an execution",
    openapi_extra=describe(DevboxSendStdInResult, body=ExecutionSendStdInParams, errors=[404]),
)
async def send_std_in(context: Context, devbox_id: str, execution_id: str) -> Response:
    """Needs ``attach_stdin`` at the start; what is sent twice with one ``x-request-id`` is typed once."""
    given, call = await context.read(ExecutionSendStdInParams)
    typed = StdinInput(given.text, given.signal)
    work = send_stdin(context.services, call, devbox_id, execution_id, typed)
    outcome = await context.while_connected(work)
    return respond(DevboxSendStdInResult(devbox_id, execution_id, outcome.is_delivered, outcome.detail or None))


@router.get(
    "/{devbox_id}/executions/{execution_id}/stream_stdout_updates",
    operation_id="streamStdoutUpdates",
    summary="Follow an execution's standard output",
    openapi_extra=describe_bytes(MediaType.EVENTS, view=ExecutionUpdateChunk, errors=[404, 429]),
)
async def stream_stdout_updates(context: Context, devbox_id: str, execution_id: str, offset: Offset = 0) -> Response:
    """What was written and what will be, until the execution has ended."""
    return await _stream(context, devbox_id, execution_id, OutputName.STDOUT, offset)


@router.get(
    "/{devbox_id}/executions/{execution_id}/stream_stderr_updates",
    operation_id="streamStderrUpdates",
    summary="Follow an execution's standard error",
    openapi_extra=describe_bytes(MediaType.EVENTS, view=ExecutionUpdateChunk, errors=[404, 429]),
)
async def stream_stderr_updates(context: Context, devbox_id: str, execution_id: str, offset: Offset = 0) -> Response:
    """What was written and what will be, until the execution has ended."""
    return await _stream(context, devbox_id, execution_id, OutputName.STDERR, offset)


async def _stream(
    context: RequestContext, devbox_id: str, execution_id: str, name: OutputName, offset: int
) -> Response:
    services = context.services
    pieces = await open_output(services, context.caller, devbox_id, execution_id, name=name, offset=offset)
    return respond_events(services, _chunks(pieces))


async def _chunks(pieces: AsyncGenerator[OutputPiece, None]) -> AsyncGenerator[ExecutionUpdateChunk, None]:
    try:
        async for piece in pieces:
            yield ExecutionUpdateChunk(piece.text, piece.end)
    finally:
        await pieces.aclose()
