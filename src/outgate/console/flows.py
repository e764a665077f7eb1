"""What is decided: a table, newest first, to which new decisions are added as they are made."""

from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from sqlalchemy import Connection
from starlette.responses import Response

from outgate.api.event_streams import respond_events
from outgate.clock import wall_ms
from outgate.console.permissions import ApiRoute
from outgate.console.templates import render_template
from outgate.console.visits import Visit
from outgate.control.builtin_policies import BUILTIN_POLICIES
from outgate.control.console_sessions import is_signed_in
from outgate.control.flow_views import NetworkFlowView, view_flow
from outgate.control.flows import follow_flows, page_flows
from outgate.control.transactions import read_as
from outgate.store.devboxes import DevboxFilter, list_devboxes
from outgate.store.flows import FlowFilter, FlowRow, find_last_number
from outgate.store.policies import PolicyFilter, list_policies

PAGE: Final = 100
CHOICES_MAX: Final = 200
"""Devboxes and policies that can be chosen from a list; any other by its id in the address."""
VERDICTS: Final = ("allow", "deny", "report_only")


class FlowFragment(msgspec.Struct, frozen=True):
    """A record as a row of the table."""

    number: int
    html: str


class Choices(msgspec.Struct, frozen=True):
    """What can be filtered by: id and label. ``last`` is the number of the newest record of all."""

    devboxes: tuple[tuple[str, str], ...]
    policies: tuple[tuple[str, str], ...]
    last: int

    def label(self, id_: str) -> str:
        """The name of a devbox or policy, else its id."""
        return dict((*self.devboxes, *self.policies)).get(id_, id_)


async def show_flows(visit: Visit) -> Response:
    """One page of records, and whence the stream goes on."""
    # Read first: what is decided between the two reads comes by the stream, too, which drops what is there.
    choices = await _read_choices(visit)
    before = visit.number("before")
    page = await page_flows(visit.services, visit.caller, _wanted(visit), before=before, limit=PAGE)
    return await visit.page(
        "flows.html",
        flows=[view_flow(row) for row in page.flows],
        choices=choices,
        chosen={name: visit.query(name) for name in ("devbox_id", "policy_id", "verdict", "hostname")},
        verdicts=VERDICTS,
        before=before,
        next=page.flows[-1].number if page.has_more else None,
        last=choices.last,
    )


async def stream_flows(visit: Visit) -> Response:
    """New records as rows, one for each event, until the session ends."""
    after = visit.number("after", first=0)
    pages = follow_flows(visit.services, visit.caller, _wanted(visit), after=after)
    if after is None:
        # The place of "now" is found before the answer begins: what is decided after it is not missed.
        await anext(pages)
    return respond_events(visit.services, _rows(visit, await _read_choices(visit), pages))


async def _rows(
    visit: Visit, choices: Choices, pages: AsyncGenerator[tuple[FlowRow, ...], None]
) -> AsyncGenerator[FlowFragment, None]:
    try:
        async for rows in pages:
            if not await is_signed_in(visit.services, visit.session.token, wall_ms()):
                return
            for row in rows:
                yield FlowFragment(row.number, _render_row(view_flow(row), choices))
    finally:
        await pages.aclose()


def _render_row(flow: NetworkFlowView, choices: Choices) -> str:
    return render_template("flow_row.html", flow=flow, choices=choices)


def _wanted(visit: Visit) -> FlowFilter:
    verdict = visit.query("verdict")
    return FlowFilter(
        devbox_id=visit.query("devbox_id") or None,
        policy_id=visit.query("policy_id") or None,
        verdict=verdict if verdict in VERDICTS else None,
        # Records hold names in lower case, without the last dot.
        name=visit.query("hostname").lower().removesuffix(".") or None,
    )


async def _read_choices(visit: Visit) -> Choices:
    account_id = visit.caller.account_id
    can_list = visit.may(ApiRoute.LIST_DEVBOXES), visit.may(ApiRoute.LIST_POLICIES)

    def read(tx: Connection) -> Choices:
        devboxes = list_devboxes(tx, account_id, DevboxFilter(), limit=CHOICES_MAX) if can_list[0] else []
        policies = list_policies(tx, account_id, PolicyFilter(), limit=CHOICES_MAX) if can_list[1] else []
        return Choices(
            tuple((row.id, row.name or row.id) for row in devboxes),
            (*((row.id, row.name) for row in policies), *((row.id, row.name) for row in BUILTIN_POLICIES.values())),
            find_last_number(tx),
        )

    return await read_as(visit.services, visit.caller, read)
