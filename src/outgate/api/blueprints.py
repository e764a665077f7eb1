"""``/v1/blueprints``."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from outgate.api.blueprint_bodies import BlueprintCreateParams
from outgate.api.blueprint_views import (
    BlueprintBuildLogsListView,
    BlueprintListView,
    BlueprintPreviewView,
    BlueprintView,
    view_blueprint,
    view_blueprints,
    view_build_log,
)
from outgate.api.context import Context
from outgate.api.devbox_views import EmptyView
from outgate.api.openapi import describe
from outgate.api.parameters import BlueprintCursor, IncludeTotalCount, Limit, NamePart, parse_cursor
from outgate.api.responses import respond
from outgate.control.blueprint_preview import render_preview
from outgate.control.blueprint_reading import get_blueprint, page_blueprints, read_build_log
from outgate.control.blueprint_states import BlueprintStatus
from outgate.control.blueprints import create_blueprint, delete_blueprint
from outgate.control.ids import IdPrefix
from outgate.store.blueprints import BlueprintFilter

router: Final = APIRouter(prefix="/v1/blueprints", tags=["blueprints"])

Name = Annotated[NamePart | None, Query(description="Only blueprints of this name.")]
Status = Annotated[BlueprintStatus | None, Query(description="Only blueprints in this status.")]


@router.post(
    "",
    operation_id="createBlueprint",
    summary="Create a blueprint",
    openapi_extra=describe(BlueprintView, body=BlueprintCreateParams, errors=[409]),
)
async def create(context: Context) -> Response:
    """Answers at once; the build begins when its network policy is in force."""
    given, call = await context.read(BlueprintCreateParams)
    return respond(view_blueprint(await create_blueprint(context.services, call, given.to_input())))


@router.get("", operation_id="listBlueprints", summary="List blueprints", openapi_extra=describe(BlueprintListView))
async def list_all(
    context: Context,
    *,
    name: Name = None,
    status: Status = None,
    limit: Limit = 20,
    starting_after: BlueprintCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first, deleted ones left out."""
    wanted = BlueprintFilter(name, status, before=parse_cursor(IdPrefix.BLUEPRINT, starting_after))
    page = await page_blueprints(context.services, context.caller, wanted, limit=limit, count_total=include_total_count)
    return respond(view_blueprints(page))


# Before "/{id}", which would take it for an id.
@router.get(
    "/list_public",
    operation_id="listPublicBlueprints",
    summary="List blueprints that everybody may use",
    openapi_extra=describe(BlueprintListView),
)
async def list_public(
    context: Context,  # noqa: ARG001 - makes the route want a key
    *,
    name: Name = None,  # noqa: ARG001 - a parameter of the wire, checked as the other list's
    status: Status = None,  # noqa: ARG001 - likewise
    limit: Limit = 20,  # noqa: ARG001 - likewise
    starting_after: BlueprintCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Always empty: an account's blueprints are its own."""
    parse_cursor(IdPrefix.BLUEPRINT, starting_after)
    return respond(BlueprintListView((), has_more=False, total_count=0 if include_total_count else None))


@router.post(
    "/preview",
    operation_id="previewBlueprint",
    summary="Show what would be built, as a Dockerfile",
    openapi_extra=describe(BlueprintPreviewView, body=BlueprintCreateParams),
)
async def preview(context: Context) -> Response:
    """Builds nothing."""
    given, _ = await context.read(BlueprintCreateParams)
    return respond(BlueprintPreviewView(render_preview(given.to_input())))


@router.get(
    "/{id}",
    operation_id="getBlueprint",
    summary="Read a blueprint",
    openapi_extra=describe(BlueprintView, errors=[404]),
)
async def get(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """The blueprint as it is; a deleted one says so."""
    return respond(view_blueprint(await get_blueprint(context.services, context.caller, id)))


@router.get(
    "/{id}/logs",
    operation_id="getBlueprintLogs",
    summary="Read what the build said",
    openapi_extra=describe(BlueprintBuildLogsListView, errors=[404]),
)
async def logs(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """All of it so far; it grows while the build goes on."""
    return respond(view_build_log(id, await read_build_log(context.services, context.caller, id)))


@router.post(
    "/{id}/delete",
    operation_id="deleteBlueprint",
    summary="Delete a blueprint",
    openapi_extra=describe(EmptyView, errors=[404, 409, 413]),
)
async def delete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """400 while devboxes, snapshots or builds depend on it. A build that runs is cancelled."""
    await delete_blueprint(context.services, await context.read_nothing(), id)
    return respond(EmptyView())
