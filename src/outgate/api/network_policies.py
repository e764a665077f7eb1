"""``/v1/network-policies``."""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Response

from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.parameters import IncludeTotalCount, Limit, NamePart, PolicyCursor, parse_cursor
from outgate.api.policy_bodies import NetworkPolicyCreateParams, NetworkPolicyUpdateParams
from outgate.api.policy_views import (
    NetworkPolicyListView,
    NetworkPolicyView,
    render_enforcement,
    view_policies,
    view_policy,
)
from outgate.api.responses import respond
from outgate.control.ids import IdPrefix
from outgate.control.policies import create_policy, delete_policy, update_policy
from outgate.control.policy_reading import get_policy, page_policies
from outgate.store.policies import PolicyFilter

router: Final = APIRouter(prefix="/v1/network-policies", tags=["network policies"])

ENFORCED_HEADER: Final = "x-outgate-enforced"


@router.post(
    "",
    operation_id="createNetworkPolicy",
    summary="Create a network policy",
    openapi_extra=describe(NetworkPolicyView, body=NetworkPolicyCreateParams, errors=[409]),
)
async def create(context: Context) -> Response:
    """Names are unique in an account."""
    given, call = await context.read(NetworkPolicyCreateParams)
    return respond(view_policy(await create_policy(context.services, call, given.to_input())))


@router.get(
    "",
    operation_id="listNetworkPolicies",
    summary="List network policies",
    openapi_extra=describe(NetworkPolicyListView),
)
async def list_all(
    context: Context,
    *,
    id: Annotated[NamePart | None, Query(description="Only the policy of this id.")] = None,  # noqa: A002 - the wire's name
    name: Annotated[NamePart | None, Query(description="Only names that contain this.")] = None,
    search: Annotated[NamePart | None, Query(description="Only this id, or names that contain this.")] = None,
    enforcement: Annotated[
        Literal["enforce", "report_only"] | None, Query(description="Only policies that do this.")
    ] = None,
    limit: Limit = 20,
    starting_after: PolicyCursor = None,
    include_total_count: IncludeTotalCount = True,
) -> Response:
    """Newest first. The policy that ``starting_after`` names may have been deleted since."""
    wanted = PolicyFilter(id, name, search, enforcement, before=parse_cursor(IdPrefix.POLICY, starting_after))
    page = await page_policies(context.services, context.caller, wanted, limit=limit, count_total=include_total_count)
    return respond(view_policies(page))


@router.get(
    "/{id}",
    operation_id="getNetworkPolicy",
    summary="Read a network policy",
    openapi_extra=describe(NetworkPolicyView, errors=[404]),
)
async def get(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """All seven egress fields, always."""
    return respond(view_policy(await get_policy(context.services, context.caller, id)))


@router.post(
    "/{id}",
    operation_id="updateNetworkPolicy",
    summary="Update a network policy",
    openapi_extra=describe(
        NetworkPolicyView,
        body=NetworkPolicyUpdateParams,
        is_body_optional=True,
        errors=[404, 409],
        headers={ENFORCED_HEADER: "k/n: in force on k of the n devboxes that use the policy."},
    ),
)
async def update(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Absent and null keep, a value replaces, ``[]`` clears. In force when the response is sent."""
    given, call = await context.read(NetworkPolicyUpdateParams)
    updated = await update_policy(context.services, call, id, given.to_input())
    return respond(view_policy(updated.policy), {ENFORCED_HEADER: render_enforcement(updated.enforcement)})


@router.post(
    "/{id}/delete",
    operation_id="deleteNetworkPolicy",
    summary="Delete a network policy",
    openapi_extra=describe(NetworkPolicyView, errors=[404, 409, 413]),
)
async def delete(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Refused while devboxes use it. Answers what it was last."""
    return respond(view_policy(await delete_policy(context.services, await context.read_nothing(), id)))
