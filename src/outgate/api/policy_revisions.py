"""``/v1/network-policies/{id}/revisions``: extensions."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from outgate.api.bodies import BODY_CONFIG, Whole
from outgate.api.context import Context
from outgate.api.network_policies import ENFORCED_HEADER
from outgate.api.openapi import describe
from outgate.api.parameters import Limit
from outgate.api.policy_views import (
    NetworkPolicyRevisionDiffView,
    NetworkPolicyRevisionListView,
    NetworkPolicyRevisionView,
    NetworkPolicyView,
    render_enforcement,
    view_policy,
    view_revision,
    view_revision_diff,
    view_revisions,
)
from outgate.api.responses import respond
from outgate.control.policy_reading import page_revisions
from outgate.control.policy_revisions import diff_revisions, get_revision, restore_revision
from outgate.errors import InvalidValueError

router: Final = APIRouter(prefix="/v1/network-policies", tags=["network policies"])

_REVISION_MAX: Final = 2**53
RevisionCursor = Annotated[
    int | None, Query(ge=1, le=_REVISION_MAX, description="The last revision of the page before.")
]
Revision = Annotated[int, Path(ge=1, le=_REVISION_MAX)]
Against = Annotated[int | None, Query(ge=1, le=_REVISION_MAX, description="The older version; absent: the one before.")]


class NetworkPolicyRestoreParams(BaseModel):
    """The version to go back to."""

    model_config = ConfigDict(**BODY_CONFIG)

    revision: Annotated[Whole, Field(json_schema_extra={"minimum": 1, "maximum": _REVISION_MAX})]

    def given_revision(self) -> int:
        """Raises InvalidValueError."""
        if not 1 <= self.revision <= _REVISION_MAX:
            raise InvalidValueError(f"revision is {self.revision}; revisions count from 1.", field="revision")
        return self.revision


@router.get(
    "/{id}/revisions",
    operation_id="listNetworkPolicyRevisions",
    summary="The history of a network policy",
    openapi_extra=describe(NetworkPolicyRevisionListView, errors=[404]),
)
async def list_revisions(
    context: Context,
    id: str,  # noqa: A002 - the wire's name
    limit: Limit = 20,
    starting_after: RevisionCursor = None,
) -> Response:
    """Newest first: each stored version, by which key and when."""
    page = await page_revisions(context.services, context.caller, id, before=starting_after, limit=limit)
    return respond(view_revisions(page))


@router.get(
    "/{id}/revisions/{revision}",
    operation_id="getNetworkPolicyRevision",
    summary="One version of a network policy",
    openapi_extra=describe(NetworkPolicyRevisionView, errors=[404]),
)
async def get(context: Context, id: str, revision: Revision) -> Response:  # noqa: A002 - the wire's name
    """What it said."""
    return respond(view_revision(await get_revision(context.services, context.caller, id, revision)))


@router.get(
    "/{id}/revisions/{revision}/diff",
    operation_id="diffNetworkPolicyRevisions",
    summary="The difference of two versions",
    openapi_extra=describe(NetworkPolicyRevisionDiffView, errors=[404]),
)
async def diff(
    context: Context,
    id: str,  # noqa: A002 - the wire's name
    revision: Revision,
    against: Against = None,
) -> Response:
    """What was added and removed between version ``against`` and this one."""
    older = max(1, revision - 1) if against is None else against
    found = await diff_revisions(context.services, context.caller, id, revision, against=older)
    return respond(view_revision_diff(found))


@router.post(
    "/{id}/restore",
    operation_id="restoreNetworkPolicy",
    summary="Go back to a version",
    openapi_extra=describe(
        NetworkPolicyView,
        body=NetworkPolicyRestoreParams,
        errors=[404],
        headers={ENFORCED_HEADER: "k/n: in force on k of the n devboxes that use the policy."},
    ),
)
async def restore(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Its rules become the policy's again, as a new revision. In force when the response is sent."""
    given, call = await context.read(NetworkPolicyRestoreParams)
    updated = await restore_revision(context.services, call, id, given.given_revision())
    return respond(view_policy(updated.policy), {ENFORCED_HEADER: render_enforcement(updated.enforcement)})
