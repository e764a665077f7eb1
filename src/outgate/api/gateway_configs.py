"""``/v1/gateway-configs``."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from outgate.api.config_bodies import GatewayConfigCreateParams, GatewayConfigUpdateParams
from outgate.api.config_views import GatewayConfigListView, GatewayConfigView, view_gateway_config, view_gateway_configs
from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.parameters import GatewayConfigCursor, IncludeTotalCount, Limit, NamePart, parse_cursor
from outgate.api.responses import respond
from outgate.control.configs import ConfigKind, create_config, delete_config, get_config, page_configs, update_config
from outgate.control.ids import IdPrefix
from outgate.store.configs import ConfigFilter

router: Final = APIRouter(prefix="/v1/gateway-configs", tags=["gateway configs"])


@router.post(
    "",
    operation_id="createGatewayConfig",
    summary="Create a gateway config",
    openapi_extra=describe(GatewayConfigView, body=GatewayConfigCreateParams, errors=[409]),
)
async def create(context: Context) -> Response:
    """Names are unique in an account."""
    given, call = await context.read(GatewayConfigCreateParams)
    return respond(
        view_gateway_config(await create_config(context.services, call, ConfigKind.GATEWAY, given.to_input()))
    )


@router.get(
    "", operation_id="listGatewayConfigs", summary="List gateway configs", openapi_extra=describe(GatewayConfigListView)
)
async def list_all(
    context: Context,
    *,
    id: Annotated[NamePart | None, Query(description="Only the one of this id.")] = None,  # noqa: A002 - the wire's name
    name: Annotated[NamePart | None, Query(description="Only names that contain this.")] = None,
    search: Annotated[NamePart | None, Query(description="Only this id, or names that contain this.")] = None,
    limit: Limit = 20,
    starting_after: GatewayConfigCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first. The one that ``starting_after`` names may have been deleted since."""
    wanted = ConfigFilter(id, name, search, before=parse_cursor(IdPrefix.GATEWAY_CONFIG, starting_after))
    page = await page_configs(
        context.services, context.caller, ConfigKind.GATEWAY, wanted, limit=limit, count_total=include_total_count
    )
    return respond(view_gateway_configs(page))


@router.get(
    "/{id}",
    operation_id="getGatewayConfig",
    summary="Read a gateway config",
    openapi_extra=describe(GatewayConfigView, errors=[404]),
)
async def get(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Secrets show by their ids."""
    return respond(view_gateway_config(await get_config(context.services, context.caller, ConfigKind.GATEWAY, id)))


@router.post(
    "/{id}",
    operation_id="updateGatewayConfig",
    summary="Update a gateway config",
    openapi_extra=describe(GatewayConfigView, body=GatewayConfigUpdateParams, is_body_optional=True, errors=[404, 409]),
)
async def update(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Absent and null keep, a value replaces."""
    given, call = await context.read(GatewayConfigUpdateParams)
    return respond(
        view_gateway_config(await update_config(context.services, call, ConfigKind.GATEWAY, id, given.to_input()))
    )


@router.post(
    "/{id}/delete",
    operation_id="deleteGatewayConfig",
    summary="Delete a gateway config",
    openapi_extra=describe(GatewayConfigView, errors=[404, 409, 413]),
)
async def delete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Refused while live devboxes use it. Answers what it was last."""
    call = await context.read_nothing()
    return respond(view_gateway_config(await delete_config(context.services, call, ConfigKind.GATEWAY, id)))
