"""``/v1/webhooks``: an extension. Where an account wants to be told of denials and warnings."""

from typing import Final

from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.parameters import DeliveryCursor, IncludeTotalCount, Limit, WebhookCursor, parse_cursor
from outgate.api.responses import respond
from outgate.api.webhook_bodies import WebhookCreateParams, WebhookSecretParams, WebhookUpdateParams
from outgate.api.webhook_views import (
    WebhookDeliveryListView,
    WebhookDeliveryView,
    WebhookListView,
    WebhookSecretView,
    WebhookView,
    view_deliveries,
    view_delivery,
    view_secret,
    view_webhook,
    view_webhooks,
)
from outgate.control.ids import IdPrefix
from outgate.control.webhooks import (
    create_webhook,
    delete_webhook,
    get_webhook,
    page_deliveries,
    page_webhooks,
    rotate_secret,
    try_webhook,
    update_webhook,
)

router: Final = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post(
    "",
    operation_id="createWebhook",
    summary="Create a webhook",
    openapi_extra=describe(WebhookSecretView, body=WebhookCreateParams, errors=[409]),
)
async def create(context: Context) -> Response:
    """Its secret is shown here and nowhere else."""
    given, call = await context.read(WebhookCreateParams)
    return respond(view_secret(await create_webhook(context.services, call, given.to_input())))


@router.get("", operation_id="listWebhooks", summary="List webhooks", openapi_extra=describe(WebhookListView))
async def list_all(
    context: Context,
    *,
    limit: Limit = 20,
    starting_after: WebhookCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first. The one that ``starting_after`` names may have been deleted since."""
    before = parse_cursor(IdPrefix.WEBHOOK, starting_after)
    page = await page_webhooks(
        context.services, context.caller, before=before, limit=limit, count_total=include_total_count
    )
    return respond(view_webhooks(page))


@router.get(
    "/{id}",
    operation_id="getWebhook",
    summary="Read a webhook",
    openapi_extra=describe(WebhookView, errors=[404]),
)
async def get(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Without its secret."""
    return respond(view_webhook(await get_webhook(context.services, context.caller, id)))


@router.post(
    "/{id}",
    operation_id="updateWebhook",
    summary="Update a webhook",
    openapi_extra=describe(WebhookView, body=WebhookUpdateParams, is_body_optional=True, errors=[404, 409]),
)
async def update(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Absent and null keep, a value replaces."""
    given, call = await context.read(WebhookUpdateParams)
    return respond(view_webhook(await update_webhook(context.services, call, id, given.to_input())))


@router.post(
    "/{id}/delete",
    operation_id="deleteWebhook",
    summary="Delete a webhook",
    openapi_extra=describe(WebhookView, errors=[404, 409, 413]),
)
async def delete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Its secret, and what waited for it, are gone when this is answered."""
    return respond(view_webhook(await delete_webhook(context.services, await context.read_nothing(), id)))


@router.post(
    "/{id}/test",
    operation_id="testWebhook",
    summary="Send a delivery to try a webhook out",
    openapi_extra=describe(WebhookDeliveryView, errors=[404, 409, 413]),
)
async def test(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Tried once, at once; its deliveries say how that ended."""
    return respond(view_delivery(await try_webhook(context.services, await context.read_nothing(), id)))


@router.post(
    "/{id}/secret",
    operation_id="rotateWebhookSecret",
    summary="Give a webhook a new secret",
    openapi_extra=describe(WebhookSecretView, body=WebhookSecretParams, is_body_optional=True, errors=[404, 409]),
)
async def rotate(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Both secrets sign until the old one's time is up. The new one is shown here and nowhere else."""
    given, call = await context.read(WebhookSecretParams)
    return respond(view_secret(await rotate_secret(context.services, call, id, overlap_s=given.overlap_seconds)))


@router.get(
    "/{id}/deliveries",
    operation_id="listWebhookDeliveries",
    summary="What was, and is to be, delivered",
    openapi_extra=describe(WebhookDeliveryListView, errors=[404]),
)
async def deliveries(
    context: Context,
    id: str,  # noqa: A002 - the wire's name
    *,
    limit: Limit = 20,
    starting_after: DeliveryCursor = None,
) -> Response:
    """Newest first; those that wait, and of those that ended the newest hundred of the last week."""
    before = parse_cursor(IdPrefix.DELIVERY, starting_after)
    page = await page_deliveries(context.services, context.caller, id, before=before, limit=limit)
    return respond(view_deliveries(page))
