"""``/v1/mcp-configs``."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from outgate.api.config_bodies import McpConfigCreateParams, McpConfigUpdateParams
from outgate.api.config_views import McpConfigListView, McpConfigView, view_mcp_config, view_mcp_configs
from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.parameters import IncludeTotalCount, Limit, McpConfigCursor, NamePart, parse_cursor
from outgate.api.responses import respond
from outgate.control.configs import ConfigKind, create_config, delete_config, get_config, page_configs, update_config
from outgate.control.ids import IdPrefix
from outgate.store.configs import ConfigFilter

router: Final = APIRouter(prefix="/v1/mcp-configs", tags=["MCP configs"])


@router.post(
    "",
    operation_id="createMcpConfig",
    summary="Create an MCP config",
    openapi_extra=describe(McpConfigView, body=McpConfigCreateParams, errors=[409]),
)
async def create(context: Context) -> Response:
    """Names are unique in an account."""
    given, call = await context.read(McpConfigCreateParams)
    return respond(view_mcp_config(await create_config(context.services, call, ConfigKind.MCP, given.to_input())))


@router.get("", operation_id="listMcpConfigs", summary="List MCP configs", openapi_extra=describe(McpConfigListView))
async def list_all(
    context: Context,
    *,
    id: Annotated[NamePart | None, Query(description="Only the one of this id.")] = None,  # noqa: A002 - the wire's name
    name: Annotated[NamePart | None, Query(description="Only names that contain this.")] = None,
    search: Annotated[NamePart | None, Query(description="Only this id, or names that contain this.")] = None,
    limit: Limit = 20,
    starting_after: McpConfigCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first. The one that ``starting_after`` names may have been deleted since."""
    wanted = ConfigFilter(id, name, search, before=parse_cursor(IdPrefix.MCP_CONFIG, starting_after))
    page = await page_configs(
        context.services, context.caller, ConfigKind.MCP, wanted, limit=limit, count_total=include_total_count
    )
    return respond(view_mcp_configs(page))


@router.get(
    "/{id}",
    operation_id="getMcpConfig",
    summary="Read an MCP config",
    openapi_extra=describe(McpConfigView, errors=[404]),
)
async def get(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Secrets show by their ids."""
    return respond(view_mcp_config(await get_config(context.services, context.caller, ConfigKind.MCP, id)))


@router.post(
    "/{id}",
    operation_id="updateMcpConfig",
    summary="Update an MCP config",
    openapi_extra=describe(McpConfigView, body=McpConfigUpdateParams, is_body_optional=True, errors=[404, 409]),
)
async def update(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Absent and null keep, a value replaces."""
    given, call = await context.read(McpConfigUpdateParams)
    return respond(view_mcp_config(await update_config(context.services, call, ConfigKind.MCP, id, given.to_input())))


@router.post(
    "/{id}/delete",
    operation_id="deleteMcpConfig",
    summary="Delete an MCP config",
    openapi_extra=describe(McpConfigView, errors=[404, 409, 413]),
)
async def delete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Refused while live devboxes use it. Answers what it was last."""
    call = await context.read_nothing()
    return respond(view_mcp_config(await delete_config(context.services, call, ConfigKind.MCP, id)))
