"""What a policy should allow, by what its devboxes did: to be taken into the editor, where it can be seen first."""

from starlette.responses import Response

from outgate.console.permissions import ApiRoute
from outgate.console.policies import describe
from outgate.console.policy_editor import HOURS, find_hours
from outgate.console.policy_form import PolicyForm
from outgate.console.visits import Visit
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import get_policy
from outgate.control.suggestions import SuggestionRequest, suggest_policy
from outgate.model.policy import EGRESS_FLAGS


async def show_suggestions(visit: Visit) -> Response:
    """Each entry with what it rests on."""
    policy = await get_policy(visit.services, visit.caller, visit.path("id"))
    hours = find_hours(visit.query("hours"))
    wanted = SuggestionRequest(hours=hours, include_denied=visit.query("denied") != "no")
    found = await suggest_policy(visit.services, visit.caller, policy.id, wanted, now_ms=visit.now_ms)
    document = decode_policy(policy.document)
    proposed = PolicyForm.of_proposal(document, policy.description, found.proposed_hostnames, found.proposed_cidrs)
    return await visit.page(
        "policy_suggestions.html",
        suggestions=found,
        entries=(*found.found.hostnames, *found.found.cidrs),
        form=proposed,
        flags=EGRESS_FLAGS,
        hours=hours,
        hours_choices=HOURS,
        include_denied=wanted.include_denied,
        may_update=visit.may(ApiRoute.UPDATE_POLICY),
        **describe(policy, document),
    )
