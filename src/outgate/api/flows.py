"""``/v1/network-flows``: an extension. What was decided, for whom, and by which rule."""

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Response

from outgate.api.context import Context
from outgate.api.event_streams import respond_events
from outgate.api.openapi import MediaType, describe, describe_bytes
from outgate.api.parameters import Limit
from outgate.api.responses import respond
from outgate.control.flow_views import NetworkFlowView, view_flow
from outgate.control.flows import FlowPage, follow_flows, page_flows
from outgate.control.texts import TEXT_PATTERN
from outgate.store.flows import FlowFilter, FlowRow

router: Final = APIRouter(prefix="/v1/network-flows", tags=["network flows"])

_NUMBER_MAX: Final = 2**53


class NetworkFlowListView(msgspec.Struct, frozen=True):
    """One page, newest first; ``starting_after`` its last number gives the next while ``has_more``."""

    network_flows: tuple[NetworkFlowView, ...]
    has_more: bool


_Text = Annotated[str | None, Query(min_length=1, max_length=256, pattern=TEXT_PATTERN)]
_Time = Annotated[int | None, Query(ge=0, le=_NUMBER_MAX, description="Unix milliseconds.")]
_Before = Annotated[int | None, Query(ge=1, le=_NUMBER_MAX, description="The last number of the page before.")]
_After = Annotated[
    int | None, Query(ge=0, le=_NUMBER_MAX, description="The number after which to go on; absent: from now on.")
]
_Verdict = Annotated[Literal["allow", "deny", "report_only"] | None, Query(description="What happened.")]


@router.get(
    "",
    operation_id="listNetworkFlows",
    summary="What was decided",
    openapi_extra=describe(NetworkFlowListView),
)
async def list_all(
    context: Context,
    *,
    devbox_id: _Text = None,
    policy_id: _Text = None,
    verdict: _Verdict = None,
    hostname: _Text = None,
    since_ms: _Time = None,
    until_ms: _Time = None,
    limit: Limit = 100,
    starting_after: _Before = None,
) -> Response:
    """Newest first. Records come here about half a second after the decision."""
    wanted = FlowFilter(devbox_id, policy_id, verdict, _normal_name(hostname), since_ms, until_ms)
    page = await page_flows(context.services, context.caller, wanted, before=starting_after, limit=limit)
    return respond(_view_page(page))


@router.get(
    "/stream",
    operation_id="streamNetworkFlows",
    summary="What is decided, as it is",
    openapi_extra=describe_bytes(MediaType.EVENTS, view=NetworkFlowView, errors=[429]),
)
async def stream(
    context: Context,
    *,
    devbox_id: _Text = None,
    policy_id: _Text = None,
    verdict: _Verdict = None,
    hostname: _Text = None,
    starting_after: _After = None,
) -> Response:
    """Server-sent events, oldest first. A client that reconnects goes on after the last number it saw."""
    wanted = FlowFilter(devbox_id, policy_id, verdict, _normal_name(hostname))
    pages = follow_flows(context.services, context.caller, wanted, after=starting_after)
    if starting_after is None:
        # The place of "now" is found before the answer begins: what is decided after it is not missed.
        await anext(pages)
    return respond_events(context.services, _views(pages))


async def _views(pages: AsyncGenerator[tuple[FlowRow, ...], None]) -> AsyncGenerator[NetworkFlowView, None]:
    try:
        async for rows in pages:
            for row in rows:
                yield view_flow(row)
    finally:
        await pages.aclose()


def _normal_name(hostname: str | None) -> str | None:
    """Records hold names in lower case, without the last dot."""
    return None if hostname is None else hostname.lower().removesuffix(".")


def _view_page(page: FlowPage) -> NetworkFlowListView:
    return NetworkFlowListView(tuple(view_flow(row) for row in page.flows), page.has_more)
