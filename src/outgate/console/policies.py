"""Policies: the list, one of them, deleting one."""

from typing import Any, Final

from starlette.responses import Response

from outgate.console.permissions import ApiRoute
from outgate.console.places import HOME
from outgate.console.visits import Visit, lead_to
from outgate.control.ids import IdPrefix, is_id
from outgate.control.policies import delete_policy
from outgate.control.policy_advice import advise_document
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import page_policies
from outgate.control.policy_usage import count_users, find_usage
from outgate.core.policy_words import describe_policy
from outgate.errors import InvalidValueError
from outgate.model.desired import PolicyDocument
from outgate.store.policies import PolicyFilter, PolicyRow

PAGE: Final = 20


async def show_policies(visit: Visit) -> Response:
    """All policies of the account, newest first, with what each does."""
    after, search = visit.query("after"), visit.query("search")
    wanted = PolicyFilter(search=search or None, before=after if is_id(IdPrefix.POLICY, after) else None)
    page = await page_policies(visit.services, visit.caller, wanted, limit=PAGE, count_total=True)
    users = await count_users(visit.services, visit.caller, page.policies)
    return await visit.page(
        "policies.html",
        policies=[
            (row, decode_policy(row.document), describe_policy(decode_policy(row.document))) for row in page.policies
        ],
        users=users,
        search=search,
        total=page.total_count,
        next=page.policies[-1].id if page.has_more else None,
        may_create=visit.may(ApiRoute.CREATE_POLICY),
    )


async def show_policy(visit: Visit) -> Response:
    """One policy: its effect, what to think twice about, who uses it, its rules."""
    usage = await find_usage(visit.services, visit.caller, visit.path("id"))
    document = decode_policy(usage.policy.document)
    return await visit.page(
        "policy.html",
        usage=usage,
        enforced=visit.query("enforced"),
        may_update=visit.may(ApiRoute.UPDATE_POLICY),
        may_delete=visit.may(ApiRoute.DELETE_POLICY),
        **describe(usage.policy, document),
    )


def describe(policy: PolicyRow, document: PolicyDocument) -> dict[str, Any]:
    """What templates say of a policy."""
    return {
        "policy": policy,
        "document": document,
        "effect": describe_policy(document),
        "advice": advise_document(document),
    }


async def ask_to_delete(visit: Visit, problem: str = "", status: int = 200) -> Response:
    """Is that meant?"""
    usage = await find_usage(visit.services, visit.caller, visit.path("id"))
    return await visit.page("policy_delete.html", usage=usage, policy=usage.policy, problem=problem, status=status)


async def delete(visit: Visit) -> Response:
    """Delete it, or say who still needs it."""
    try:
        await delete_policy(visit.services, visit.call, visit.path("id"))
    except InvalidValueError as error:
        return await ask_to_delete(visit, error.message, 400)
    return lead_to(HOME)
