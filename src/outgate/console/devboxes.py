"""Devboxes: the list, and one with what it was denied lately."""

from typing import Final

import msgspec
from starlette.responses import Response

from outgate.console.permissions import ApiRoute
from outgate.console.visits import Visit
from outgate.control.devbox_overview import DevboxOverview, get_overview, page_overview
from outgate.control.devbox_states import DevboxStatus
from outgate.control.flow_views import view_flow
from outgate.control.flows import page_flows
from outgate.control.ids import IdPrefix, is_id
from outgate.core.denials import gather_denials
from outgate.core.policy_words import describe_policy
from outgate.store.devboxes import DevboxFilter
from outgate.store.flows import FlowFilter

PAGE: Final = 50
DENIALS_MAX: Final = 200
"""Records out of which the kinds of denial are gathered."""
_STATUSES: Final = frozenset[str](DevboxStatus)


async def show_devboxes(visit: Visit) -> Response:
    """The account's devboxes, newest first."""
    after, status = visit.query("after"), visit.query("status")
    wanted = DevboxFilter(
        status=status if status in _STATUSES else None, before=after if is_id(IdPrefix.DEVBOX, after) else None
    )
    page = await page_overview(visit.services, visit.caller, wanted, limit=PAGE, now_ms=visit.now_ms)
    return await visit.page(
        "devboxes.html",
        devboxes=page.devboxes,
        state=wanted.status or "",
        next=page.devboxes[-1].devbox.id if page.has_more else None,
    )


async def show_devbox(visit: Visit) -> Response:
    """One devbox: its policy, whether that is in force, and what it was denied lately, with what to change."""
    found = await get_overview(visit.services, visit.caller, visit.path("id"), now_ms=visit.now_ms)
    may_see_flows = visit.may(ApiRoute.LIST_FLOWS)
    return await visit.page(
        "devbox.html",
        overview=found,
        effect=() if found.policy is None else describe_policy(found.policy),
        denials=await _find_denials(visit, found) if may_see_flows else [],
    )


async def _find_denials(visit: Visit, found: DevboxOverview) -> list[dict[str, object]]:
    wanted = FlowFilter(devbox_id=found.devbox.id, verdict="deny")
    page = await page_flows(visit.services, visit.caller, wanted, before=None, limit=DENIALS_MAX)
    kinds = gather_denials(msgspec.structs.asdict(view_flow(row)) for row in page.flows)
    return list(reversed(kinds))
