"""``/v1/devboxes/{id}/execute*`` and ``/v1/devboxes/{devbox_id}/executions``."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from outgate.api.context import Context
from outgate.api.execution_bodies import (
    DevboxExecuteAsyncParams,
    DevboxExecuteParams,
    DevboxExecuteSyncParams,
    DevboxWaitForCommandParams,
    ExecutionKillParams,
)
from outgate.api.execution_views import (
    DevboxAsyncExecutionDetailView,
    DevboxExecutionDetailView,
    view_completed,
    view_execution,
)
from outgate.api.openapi import describe
from outgate.api.responses import respond
from outgate.control.executions import (
    LAST_N_DEFAULT,
    LAST_N_MAX,
    await_execution,
    execute,
    execute_to_end,
    get_execution,
    kill_execution,
    start_execution,
)

router: Final = APIRouter(prefix="/v1/devboxes", tags=["executions"])

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
        given.command,
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
    state = await start_execution(context.services, call, id, given.command, attach_stdin=given.attach_stdin or False)
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
    work = execute_to_end(context.services, call, id, given.command)
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
    """The command and its children."""
    await context.read(ExecutionKillParams)
    state = await kill_execution(context.services, context.caller, devbox_id, execution_id)
    return respond(view_execution(devbox_id, state))
