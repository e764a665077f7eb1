"""Routes of the agent's interface that are about snapshots."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outgate.agent.answers import answer, answer_error, make_route, read_document, read_number
from outgate.agent.snapshots import Snapshots
from outgate.model.snapshots import SnapshotRemoval, SnapshotRequest


def snapshot_routes(snapshots: Snapshots) -> list[Route]:
    """The routes."""

    async def start(request: Request) -> Response:
        wanted = await read_document(request, SnapshotRequest)
        return answer(await snapshots.start(_snapshot(request), wanted.devbox_id))

    async def read(request: Request) -> Response:
        state = await snapshots.read(_snapshot(request), wait_s=read_number(request, "wait_s", 0))
        if state is None:
            return answer_error(404, "snapshot_not_found", f"There is no snapshot {_snapshot(request)[:100]} here.")
        return answer(state)

    async def remove(request: Request) -> Response:
        return answer(SnapshotRemoval(await snapshots.remove(_snapshot(request))))

    path = "/v1/snapshots/{snapshot_id}"
    return [make_route(path, start, "POST"), make_route(path, read, "GET"), make_route(path, remove, "DELETE")]


def _snapshot(request: Request) -> str:
    name: str = request.path_params["snapshot_id"]
    return name
