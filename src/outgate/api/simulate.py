"""``POST /v1/network-policies/{id}/simulate``: an extension."""

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Response
from pydantic import Field

from outgate.api.bodies import Whole
from outgate.api.context import Context
from outgate.api.explain import NetworkPolicyExplainCheck, view_check
from outgate.api.openapi import describe
from outgate.api.policy_bodies import NetworkPolicyUpdateParams
from outgate.api.responses import respond
from outgate.control.simulation import Change, Simulation, simulate
from outgate.errors import InvalidValueError

router: Final = APIRouter(prefix="/v1/network-policies", tags=["network policies"])

HOURS_DEFAULT: Final = 24
HOURS_MAX: Final = 24 * 3650


class NetworkPolicySimulateParams(NetworkPolicyUpdateParams):
    """A change as for an update, and how many hours back to look."""

    hours: Annotated[Whole, Field(json_schema_extra={"minimum": 1, "maximum": HOURS_MAX})] | None = None

    def given_hours(self) -> int:
        """Raises InvalidValueError."""
        hours = HOURS_DEFAULT if self.hours is None else self.hours
        if not 1 <= hours <= HOURS_MAX:
            raise InvalidValueError(f"hours is {hours}; it may be 1 to {HOURS_MAX}.", field="hours")
        return hours


class NetworkPolicySimulatedChange(msgspec.Struct, frozen=True):
    """Something that was tried ``count`` times by ``devbox_count`` devboxes, and would turn out otherwise.

    Without ``port`` it was a lookup. ``time_ms`` is when it was tried last.
    """

    hostname: str | None
    address: str | None
    port: int | None
    protocol: str | None
    count: int
    devbox_count: int
    time_ms: int
    was: NetworkPolicyExplainCheck
    becomes: NetworkPolicyExplainCheck


class NetworkPolicySimulationView(msgspec.Struct, frozen=True):
    """What would have been opened and closed since ``since_ms``, most frequent first.

    ``judged_count`` decisions were looked at. ``undecided_count`` of them cannot be judged anew: they were allowed by
    an address that a lookup had taught. ``partial`` is true when there were more kinds of them than are looked at.
    """

    policy_id: str
    revision: int
    since_ms: int
    judged_count: int
    undecided_count: int
    opened: tuple[NetworkPolicySimulatedChange, ...]
    closed: tuple[NetworkPolicySimulatedChange, ...]
    partial: bool


@router.post(
    "/{id}/simulate",
    operation_id="simulateNetworkPolicy",
    summary="What an update would change",
    openapi_extra=describe(
        NetworkPolicySimulationView, body=NetworkPolicySimulateParams, is_body_optional=True, errors=[404]
    ),
)
async def simulate_update(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Judged by the recorded decisions of the policy's devboxes. Changes nothing."""
    given, call = await context.read(NetworkPolicySimulateParams)
    hours = given.given_hours()
    work = simulate(context.services, context.caller, id, given.to_input(), hours=hours, now_ms=call.now_ms)
    return respond(_view(await work))


def _view(simulation: Simulation) -> NetworkPolicySimulationView:
    return NetworkPolicySimulationView(
        policy_id=simulation.policy_id,
        revision=simulation.revision,
        since_ms=simulation.since_ms,
        judged_count=simulation.judged,
        undecided_count=simulation.undecided,
        opened=tuple(_view_change(change) for change in simulation.opened),
        closed=tuple(_view_change(change) for change in simulation.closed),
        partial=simulation.is_partial,
    )


def _view_change(change: Change) -> NetworkPolicySimulatedChange:
    seen = change.seen
    return NetworkPolicySimulatedChange(
        hostname=seen.name or None,
        address=seen.address or None,
        port=seen.port or None,
        protocol=seen.protocol or None,
        count=seen.count,
        devbox_count=seen.devboxes,
        time_ms=seen.time_ms,
        was=view_check(change.was),
        becomes=view_check(change.becomes),
    )
