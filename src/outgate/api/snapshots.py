"""``/v1/devboxes/{id}/snapshot_disk*`` and ``/v1/devboxes/disk_snapshots``."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from outgate.api.context import Context
from outgate.api.devbox_views import EmptyView
from outgate.api.openapi import describe
from outgate.api.parameters import IncludeTotalCount, Limit, NamePart, SnapshotCursor, parse_cursor
from outgate.api.responses import respond
from outgate.api.snapshot_bodies import DevboxSnapshotDiskParams, DiskSnapshotUpdateParams, parse_metadata_filter
from outgate.api.snapshot_views import (
    DevboxSnapshotAsyncStatusView,
    DevboxSnapshotListView,
    DevboxSnapshotView,
    view_snapshot,
    view_snapshot_status,
    view_snapshots,
)
from outgate.control.ids import IdPrefix
from outgate.control.snapshots import (
    await_snapshot,
    create_snapshot,
    delete_snapshot,
    describe_snapshot,
    get_snapshot,
    page_snapshots,
)
from outgate.control.texts import METADATA_VALUE_LENGTH_MAX, TEXT_PATTERN
from outgate.store.snapshots import SnapshotFilter

router: Final = APIRouter(prefix="/v1/devboxes", tags=["disk snapshots"])

_METADATA_VALUE: Final = {"type": "string", "maxLength": METADATA_VALUE_LENGTH_MAX, "pattern": TEXT_PATTERN}
_METADATA_FILTERS: Final = [
    {
        "name": "metadata[key]",
        "in": "query",
        "description": "Only snapshots whose metadata has this value under this key (any key may stand there).",
        "schema": _METADATA_VALUE,
    },
    {
        "name": "metadata[key][in]",
        "in": "query",
        "description": "The same for one of several values, separated by commas.",
        "schema": _METADATA_VALUE,
    },
]


@router.get(
    "/disk_snapshots",
    operation_id="listDiskSnapshots",
    summary="List disk snapshots",
    openapi_extra=describe(DevboxSnapshotListView) | {"parameters": _METADATA_FILTERS},
)
async def list_all(
    context: Context,
    *,
    devbox_id: Annotated[NamePart | None, Query(description="Only snapshots of this devbox.")] = None,
    source_blueprint_id: Annotated[NamePart | None, Query(description="Only those from this blueprint.")] = None,
    limit: Limit = 20,
    starting_after: SnapshotCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first, those in progress and those that failed too."""
    wanted = SnapshotFilter(
        devbox_id,
        source_blueprint_id,
        parse_metadata_filter(context.request.query_params),
        before=parse_cursor(IdPrefix.SNAPSHOT, starting_after),
    )
    page = await page_snapshots(context.services, context.caller, wanted, limit=limit, count_total=include_total_count)
    return respond(view_snapshots(page))


@router.get(
    "/disk_snapshots/{id}/status",
    operation_id="getDiskSnapshotStatus",
    summary="How far a disk snapshot is",
    openapi_extra=describe(DevboxSnapshotAsyncStatusView, errors=[404]),
)
async def read_status(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Deleted ones are still known, as ``deleted``."""
    return respond(view_snapshot_status(await get_snapshot(context.services, context.caller, id)))


@router.post(
    "/disk_snapshots/{id}",
    operation_id="updateDiskSnapshot",
    summary="Update name, commit message or metadata",
    openapi_extra=describe(DevboxSnapshotView, body=DiskSnapshotUpdateParams, is_body_optional=True, errors=[404]),
)
async def update(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Absent and null keep, what is given replaces."""
    given, call = await context.read(DiskSnapshotUpdateParams)
    return respond(view_snapshot(await describe_snapshot(context.services, call, id, given.to_input())))


@router.post(
    "/disk_snapshots/{id}/delete",
    operation_id="deleteDiskSnapshot",
    summary="Delete a disk snapshot",
    openapi_extra=describe(EmptyView, errors=[404, 409, 413]),
)
async def delete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Devboxes and snapshots that came from it go on. Refused while it is in progress."""
    await delete_snapshot(context.services, await context.read_nothing(), id)
    return respond(EmptyView())


@router.post(
    "/{id}/snapshot_disk_async",
    operation_id="snapshotDiskAsync",
    summary="Begin a disk snapshot",
    openapi_extra=describe(DevboxSnapshotView, body=DevboxSnapshotDiskParams, is_body_optional=True, errors=[404, 409]),
)
async def begin(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Answers at once. The devbox, running or suspended, stays what it is."""
    given, call = await context.read(DevboxSnapshotDiskParams)
    return respond(view_snapshot(await create_snapshot(context.services, call, id, given.to_input())))


@router.post(
    "/{id}/snapshot_disk",
    operation_id="snapshotDisk",
    summary="Make a disk snapshot",
    openapi_extra=describe(
        DevboxSnapshotView, body=DevboxSnapshotDiskParams, is_body_optional=True, errors=[404, 408, 409, 429]
    ),
)
async def make(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Answers when the snapshot is complete, which may take minutes."""
    given, call = await context.read(DevboxSnapshotDiskParams)
    row = await create_snapshot(context.services, call, id, given.to_input())
    awaited = await_snapshot(context.services, context.caller, row)
    return respond(view_snapshot(await context.while_connected(awaited)))
