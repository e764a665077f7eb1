"""``/v1/devboxes/evictions/watch``: which devboxes are about to end, as server-sent events."""

from collections.abc import AsyncGenerator
from typing import Final

from fastapi import APIRouter, Response

from outgate.api.context import Context
from outgate.api.devbox_views import DevboxEvictionEventView, view_eviction
from outgate.api.event_streams import respond_events
from outgate.api.openapi import MediaType, describe_bytes
from outgate.control.evictions import Eviction, watch_evictions

router: Final = APIRouter(prefix="/v1/devboxes", tags=["devboxes"])


@router.get(
    "/evictions/watch",
    operation_id="watchDevboxEvictions",
    summary="Watch for devboxes that are about to end",
    openapi_extra=describe_bytes(MediaType.EVENTS, view=DevboxEvictionEventView, errors=[429]),
)
async def watch(context: Context) -> Response:
    """One event for each devbox whose keep-alive or idle time is up within a minute, and again when that moves."""
    batches = watch_evictions(context.services, context.caller)
    # Looked at before the answer begins, so that a refusal can still be one.
    first = await anext(batches)
    return respond_events(context.services, _views(first, batches))


async def _views(
    first: tuple[Eviction, ...], batches: AsyncGenerator[tuple[Eviction, ...], None]
) -> AsyncGenerator[DevboxEvictionEventView, None]:
    try:
        for eviction in first:
            yield view_eviction(eviction)
        async for batch in batches:
            for eviction in batch:
                yield view_eviction(eviction)
    finally:
        await batches.aclose()
