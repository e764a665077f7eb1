"""Routes of the agent's interface that are about commands and files in devboxes."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from outgate.agent.answers import Handler, answer, make_route, read_document, read_number
from outgate.agent.executions import LAST_LINES_DEFAULT, Executions
from outgate.agent.files import Files
from outgate.client.streamed import StreamedResponse
from outgate.errors import InvalidValueError
from outgate.model.desired import ExecutionRequest
from outgate.model.executions import KillRequest, LogPage, StdinRequest
from outgate.runtime.base import OutputStream

_BYTES: Final = "application/octet-stream"


def command_routes(executions: Executions) -> list[Route]:
    """Routes about commands."""

    async def start(request: Request) -> Response:
        return answer(await executions.start(_devbox(request), await read_document(request, ExecutionRequest)))

    async def read(request: Request) -> Response:
        wait_s, last_n = read_number(request, "wait_s", 0), int(read_number(request, "last_n", LAST_LINES_DEFAULT))
        return answer(await executions.read(_devbox(request), _execution(request), wait_s=wait_s, last_n=last_n))

    async def kill(request: Request) -> Response:
        wanted = await read_document(request, KillRequest)
        return answer(await executions.kill(_devbox(request), _execution(request), is_group=wanted.is_group))

    async def send_stdin(request: Request) -> Response:
        wanted = await read_document(request, StdinRequest)
        return answer(await executions.send_stdin(_devbox(request), _execution(request), wanted))

    def follow_output(stream: OutputStream) -> Handler:
        async def follow(request: Request) -> Response:
            offset = int(read_number(request, "offset", 0))
            pieces = await executions.follow(_devbox(request), _execution(request), stream, offset)
            return StreamedResponse(pieces, _BYTES)

        return follow

    async def read_logs(request: Request) -> Response:
        query = request.query_params
        lines = await executions.read_logs(_devbox(request), query.get("execution_id"), query.get("shell_name"))
        return answer(LogPage(lines))

    async def read_activity(request: Request) -> Response:
        return answer(await executions.read_activity(_devbox(request)))

    box = "/v1/devboxes/{devbox_id}"
    execution = box + "/executions/{execution_id}"
    return [
        make_route(box + "/executions", start, "POST"),
        make_route(execution, read, "GET"),
        make_route(execution + "/kill", kill, "POST"),
        make_route(execution + "/stdin", send_stdin, "POST"),
        *(make_route(execution + f"/{stream}", follow_output(stream), "GET") for stream in OutputStream),
        make_route(box + "/logs", read_logs, "GET"),
        make_route(box + "/activity", read_activity, "GET"),
    ]


def file_routes(files: Files) -> list[Route]:
    """Routes about files."""

    async def read_file(request: Request) -> Response:
        return StreamedResponse(await _opened(files, _devbox(request), _path(request)), _BYTES)

    async def write_file(request: Request) -> Response:
        await files.write(_devbox(request), _path(request), _body(request))
        return answer({})

    path = "/v1/devboxes/{devbox_id}/file"
    return [make_route(path, read_file, "GET"), make_route(path, write_file, "PUT")]


def _devbox(request: Request) -> str:
    return str(request.path_params["devbox_id"])


def _execution(request: Request) -> str:
    return str(request.path_params["execution_id"])


def _path(request: Request) -> str:
    return request.query_params.get("path", "")


async def _opened(files: Files, devbox_id: str, path: str) -> AsyncGenerator[bytes, None]:
    """The file's pieces; whoever has them closes the file by closing them. The file is open when this returns."""
    async with AsyncExitStack() as stack:
        pieces = await stack.enter_async_context(files.open(devbox_id, path))
        opened = stack.pop_all()

    async def take() -> AsyncGenerator[bytes, None]:
        async with opened:
            async for piece in pieces:
                yield piece

    return take()


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise InvalidValueError("The body broke off.") from None
