"""``/v1/objects``."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response
from pydantic import WithJsonSchema

from outgate.api.context import Context
from outgate.api.object_bodies import ObjectCreateParams
from outgate.api.object_urls import render_transfer_url
from outgate.api.object_views import ObjectDownloadURLView, ObjectListView, ObjectView, view_object, view_objects
from outgate.api.openapi import describe
from outgate.api.parameters import IncludeTotalCount, Limit, NamePart, ObjectCursor, parse_cursor
from outgate.api.responses import respond
from outgate.clock import wall_ms
from outgate.control.ids import IdPrefix
from outgate.control.objects import (
    DOWNLOAD_URL_S_DEFAULT,
    DOWNLOAD_URL_S_MAX,
    ContentType,
    ObjectState,
    complete_object,
    create_object,
    delete_object,
    get_object,
    page_objects,
    page_public_objects,
    sign_download,
)
from outgate.store.objects import ObjectFilter

router: Final = APIRouter(prefix="/v1/objects", tags=["objects"])

OfType = Annotated[ContentType | None, Query(description="Only objects of this type.")]
Named = Annotated[NamePart | None, Query(description="Only names that contain this.")]
Searched = Annotated[NamePart | None, Query(description="Only this id, or names that contain this.")]
# Written out for the document: it holds the schemas of bodies and answers, and no body has this type.
InState = Annotated[
    Annotated[ObjectState, WithJsonSchema({"type": "string", "enum": [state.value for state in ObjectState]})] | None,
    Query(description="Only this state; deleted ones show with DELETED alone."),
]
Duration = Annotated[
    int, Query(ge=1, le=DOWNLOAD_URL_S_MAX, description="Seconds for which the URL works; a week at most.")
]


@router.post(
    "",
    operation_id="createObject",
    summary="Create a storage object",
    openapi_extra=describe(ObjectView, body=ObjectCreateParams, errors=[409]),
)
async def create(context: Context) -> Response:
    """PUT the bytes to ``upload_url`` within the hour, then complete the object."""
    given, call = await context.read(ObjectCreateParams)
    made = await create_object(context.services, call, given.to_input())
    public_url = context.services.settings.public_url
    url = None if made.ticket is None else render_transfer_url(context.request, made.ticket, public_url)
    return respond(view_object(made.row, url))


@router.get("", operation_id="listObjects", summary="List storage objects", openapi_extra=describe(ObjectListView))
async def list_all(
    context: Context,
    *,
    content_type: OfType = None,
    name: Named = None,
    search: Searched = None,
    state: InState = None,
    limit: Limit = 20,
    starting_after: ObjectCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first. The object that ``starting_after`` names may have been deleted since."""
    wanted = ObjectFilter(name, search, content_type, state, parse_cursor(IdPrefix.OBJECT, starting_after))
    page = await page_objects(context.services, context.caller, wanted, limit=limit, count_total=include_total_count)
    return respond(view_objects(page))


@router.get(
    "/list_public",
    operation_id="listPublicObjects",
    summary="List public storage objects",
    openapi_extra=describe(ObjectListView),
)
async def list_public(
    context: Context,
    *,
    content_type: OfType = None,
    name: Named = None,
    search: Searched = None,
    state: InState = None,
    limit: Limit = 20,
    starting_after: ObjectCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Always empty: each object belongs to one account, and nothing on the wire makes one public."""
    del content_type, name, search, state, limit
    parse_cursor(IdPrefix.OBJECT, starting_after)
    page = await page_public_objects(context.services, context.caller, count_total=include_total_count)
    return respond(view_objects(page))


@router.get(
    "/{id}",
    operation_id="getObject",
    summary="Read a storage object",
    openapi_extra=describe(ObjectView, errors=[404]),
)
async def get(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Deleted ones, too, for a week: their state says so."""
    return respond(view_object(await get_object(context.services, context.caller, id)))


@router.post(
    "/{id}/complete",
    operation_id="completeObject",
    summary="Say that everything was uploaded",
    openapi_extra=describe(ObjectView, errors=[404, 409, 413]),
)
async def complete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """READ_ONLY from now on."""
    return respond(view_object(await complete_object(context.services, await context.read_nothing(), id)))


@router.post(
    "/{id}/delete",
    operation_id="deleteObject",
    summary="Delete a storage object",
    openapi_extra=describe(ObjectView, errors=[404, 409, 413]),
)
async def delete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Its bytes are gone when this is answered."""
    return respond(view_object(await delete_object(context.services, await context.read_nothing(), id)))


@router.get(
    "/{id}/download",
    operation_id="generateDownloadUrl",
    summary="A URL to download from",
    openapi_extra=describe(ObjectDownloadURLView, errors=[404]),
)
async def download(
    context: Context,
    id: str,  # noqa: A002 - the wire's name
    duration_seconds: Duration = DOWNLOAD_URL_S_DEFAULT,
) -> Response:
    """It needs no API key, and works for GET and HEAD, with ranges."""
    ticket = await sign_download(context.services, context.caller, id, duration_s=duration_seconds, now_ms=wall_ms())
    return respond(
        ObjectDownloadURLView(render_transfer_url(context.request, ticket, context.services.settings.public_url))
    )
