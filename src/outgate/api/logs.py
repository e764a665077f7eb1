"""``/v1/devboxes/{id}/logs``."""

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Query, Response

from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.responses import respond
from outgate.control.logs import read_logs
from outgate.model.executions import LogLevel, LogLine, LogSource

router: Final = APIRouter(prefix="/v1/devboxes", tags=["logs"])


class DevboxLogView(msgspec.Struct, frozen=True):
    """A command (``cmd``), a line that one wrote (``message``), or a command's end (``exit_code``)."""

    level: LogLevel
    source: LogSource
    timestamp_ms: int
    cmd: str | None
    cmd_id: str
    exit_code: int | None
    message: str | None
    shell_name: str | None


class DevboxLogsListView(msgspec.Struct, frozen=True):
    """A devbox's log, oldest entry first."""

    logs: tuple[DevboxLogView, ...]


@router.get(
    "/{id}/logs",
    operation_id="listDevboxLogs",
    summary="Read a devbox's log",
    openapi_extra=describe(DevboxLogsListView, errors=[404]),
)
async def list_logs(
    context: Context,
    id: str,  # noqa: A002 - the wire's name
    execution_id: Annotated[str | None, Query(description="Only what belongs to this execution.")] = None,
    shell_name: Annotated[str | None, Query(description="Only what ran in the lasting shell of this name.")] = None,
) -> Response:
    """The last commands and their last lines, as many as the host keeps."""
    lines = await read_logs(context.services, context.caller, id, execution_id=execution_id, shell_name=shell_name)
    return respond(DevboxLogsListView(tuple(map(_view, lines))))


def _view(line: LogLine) -> DevboxLogView:
    return DevboxLogView(
        level=line.level,
        source=line.source,
        timestamp_ms=line.time_ms,
        cmd=line.cmd,
        cmd_id=line.cmd_id,
        exit_code=line.exit_code,
        message=line.message,
        shell_name=line.shell_name,
    )
