"""``/v1/devboxes``."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from outgate.api.context import Context
from outgate.api.devbox_bodies import DevboxCreateParams, DevboxUpdateParams, DevboxWaitForStatusRequest
from outgate.api.devbox_views import (
    DevboxListView,
    DevboxResourceUsageView,
    DevboxView,
    EmptyView,
    view_devbox,
    view_devboxes,
    view_usage,
)
from outgate.api.openapi import describe
from outgate.api.parameters import DevboxCursor, IncludeTotalCount, Limit, parse_cursor
from outgate.api.responses import respond
from outgate.clock import wall_ms
from outgate.control.devbox_creation import create_devbox
from outgate.control.devbox_reading import await_devbox, await_started, get_devbox, page_devboxes
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devbox_usage import measure_usage
from outgate.control.devboxes import (
    describe_devbox,
    keep_devbox_alive,
    resume_devbox,
    shut_down_devbox,
    suspend_devbox,
)
from outgate.control.ids import IdPrefix
from outgate.store.devboxes import DevboxFilter

router: Final = APIRouter(prefix="/v1/devboxes", tags=["devboxes"])

START_HOLD_S_MAX: Final = 10.0
"""The client's read timeout is 30 s; it waits on by itself, so there is no need to come near that."""


@router.post(
    "",
    operation_id="createDevbox",
    summary="Create a devbox",
    openapi_extra=describe(DevboxView, body=DevboxCreateParams, is_body_optional=True, errors=[409]),
)
async def create(context: Context) -> Response:
    """Answers at once; nothing runs in the devbox before its network policy is in force."""
    given, call = await context.read(DevboxCreateParams)
    return respond(view_devbox(await create_devbox(context.services, call, given.to_input())))


@router.get("", operation_id="listDevboxes", summary="List devboxes", openapi_extra=describe(DevboxListView))
async def list_all(
    context: Context,
    *,
    status: Annotated[DevboxStatus | None, Query(description="Only devboxes in this status.")] = None,
    limit: Limit = 20,
    starting_after: DevboxCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first, ended ones too."""
    wanted = DevboxFilter(status, before=parse_cursor(IdPrefix.DEVBOX, starting_after))
    page = await page_devboxes(context.services, context.caller, wanted, limit=limit, count_total=include_total_count)
    return respond(view_devboxes(page))


# Before "/{id}", which would take it for an id.
@router.post(
    "/create_and_await_running",
    operation_id="createDevboxAndAwaitRunning",
    summary="Create a devbox and wait for it to run",
    openapi_extra=describe(DevboxView, body=DevboxCreateParams, is_body_optional=True, errors=[408, 409, 429]),
)
async def create_and_await_running(context: Context) -> Response:
    """Like create, and holds for up to 10 s while the devbox starts. 408 while it is still queued: ask again."""
    given, call = await context.read(DevboxCreateParams)
    row = await create_devbox(context.services, call, given.to_input())
    started = await_started(context.services, context.caller, row, START_HOLD_S_MAX)
    return respond(view_devbox(await context.while_connected(started)))


@router.get(
    "/{id}", operation_id="getDevbox", summary="Read a devbox", openapi_extra=describe(DevboxView, errors=[404])
)
async def get(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """The devbox as it is."""
    return respond(view_devbox(await get_devbox(context.services, context.caller, id)))


@router.post(
    "/{id}",
    operation_id="updateDevbox",
    summary="Update name or metadata",
    openapi_extra=describe(DevboxView, body=DevboxUpdateParams, is_body_optional=True, errors=[404]),
)
async def update(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Absent and null keep; ``""`` and ``{}`` clear."""
    given, call = await context.read(DevboxUpdateParams)
    return respond(view_devbox(await describe_devbox(context.services, call, id, given.to_input())))


@router.post(
    "/{id}/wait_for_status",
    operation_id="waitForDevboxStatus",
    summary="Wait until the devbox is in one of some statuses",
    openapi_extra=describe(DevboxView, body=DevboxWaitForStatusRequest, errors=[404, 408, 429]),
)
async def wait_for_status(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """At once when it already is; else 408 after the whole of the time asked for."""
    given, _ = await context.read(DevboxWaitForStatusRequest)
    waited = await_devbox(context.services, context.caller, id, frozenset(given.statuses), given.timeout_s())
    return respond(view_devbox(await context.while_connected(waited)))


@router.post(
    "/{id}/shutdown",
    operation_id="shutdownDevbox",
    summary="End a devbox",
    openapi_extra=describe(DevboxView, errors=[404, 409, 413]),
)
async def shut_down(
    context: Context,
    id: str,  # noqa: A002 - the wire's name
    *,
    force: Annotated[bool, Query(description="Give up a snapshot that is being taken.")] = False,
) -> Response:
    """The answer already says ``shutdown``. Ended devboxes stay as they are. 409 while a snapshot is being taken."""
    call = await context.read_nothing()
    return respond(view_devbox(await shut_down_devbox(context.services, call, id, force=force)))


@router.post(
    "/{id}/suspend",
    operation_id="suspendDevbox",
    summary="Suspend a devbox",
    openapi_extra=describe(DevboxView, errors=[404, 409, 413]),
)
async def suspend(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Its suspend commands are run, its processes ended, its network taken away; its disk stays."""
    return respond(view_devbox(await suspend_devbox(context.services, await context.read_nothing(), id)))


@router.post(
    "/{id}/resume",
    operation_id="resumeDevbox",
    summary="Resume a suspended devbox",
    openapi_extra=describe(DevboxView, errors=[404, 409, 413]),
)
async def resume(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """On its disk, under its policy as it is now; the launch commands are run again."""
    return respond(view_devbox(await resume_devbox(context.services, await context.read_nothing(), id)))


@router.get(
    "/{id}/usage",
    operation_id="getDevboxResourceUsage",
    summary="Read what a devbox has used",
    openapi_extra=describe(DevboxResourceUsageView, errors=[404]),
)
async def usage(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Cores and memory count while it runs, the disk for all of its time."""
    row = await get_devbox(context.services, context.caller, id)
    return respond(view_usage(measure_usage(row, wall_ms())))


@router.post(
    "/{id}/keep_alive",
    operation_id="keepDevboxAlive",
    summary="Start the keep-alive time anew",
    openapi_extra=describe(EmptyView, errors=[404, 409, 413]),
)
async def keep_alive(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """For as long again as ``keep_alive_time_seconds`` says."""
    await keep_devbox_alive(context.services, await context.read_nothing(), id)
    return respond(EmptyView())
