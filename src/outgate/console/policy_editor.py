"""Making and changing a policy: what a change would do is shown before it can be saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.responses import Response

from outgate.api.policy_views import render_enforcement
from outgate.console.permissions import ApiRoute, check_permission
from outgate.console.places import HOME
from outgate.console.policy_form import PolicyForm, Problem
from outgate.console.visits import Visit, lead_to
from outgate.control.errors import ConflictError
from outgate.control.policies import create_policy, update_policy
from outgate.control.policy_documents import decode_policy, finish_merge, merge_change
from outgate.control.policy_input import parse_policy_input
from outgate.control.policy_reading import get_policy
from outgate.control.public_suffixes import is_shared
from outgate.control.simulation import Simulation, simulate
from outgate.core.advice import Advice, advise_policy
from outgate.core.documents import policy_from_document
from outgate.core.policy_words import describe_policy
from outgate.errors import InvalidValueError
from outgate.model.desired import PolicyDocument
from outgate.model.plan import GRANT_FIRST
from outgate.store.policies import PolicyRow

HOURS: Final = (1, 24, 168)
"""How far back a simulation may look here."""
_HOURS_DEFAULT: Final = 24
_SAVE: Final = "save"
_NEW: Final = PolicyDocument(id="", name="", number=0, revision=0)


@dataclass(frozen=True, slots=True)
class Preview:
    """What a form would do. ``digest`` goes with the form: only what was shown can be saved."""

    effect: tuple[str, ...]
    advice: tuple[Advice, ...]
    simulation: Simulation | None
    """None for a new policy, which nothing uses yet."""
    digest: str


async def show_new(visit: Visit) -> Response:
    """An empty form. Nothing is allowed by it."""
    return await _render(visit, None, PolicyForm(), (), None)


async def show_editor(visit: Visit) -> Response:
    """The form with the policy as it is."""
    policy = await get_policy(visit.services, visit.caller, visit.path("id"))
    form = PolicyForm.of_document(decode_policy(policy.document), policy.description)
    return await _render(visit, policy, form, (), None)


async def take_new(visit: Visit) -> Response:
    """Check the form and show what it would do; or create the policy, if that was asked for and shown."""
    return await _take(visit, None)


async def take_change(visit: Visit) -> Response:
    """The same for a policy that there is."""
    return await _take(visit, await get_policy(visit.services, visit.caller, visit.path("id")))


async def _take(visit: Visit, policy: PolicyRow | None) -> Response:
    form = PolicyForm.of_posted(visit.form)
    problems: Sequence[Problem] = form.find_problems()
    preview = None
    if not problems:
        try:
            preview = await _preview(visit, policy, form)
            if visit.form.get("action") == _SAVE:
                if visit.form.get("previewed") == preview.digest:
                    return await _save(visit, policy, form)
                problems = (Problem("", _not_shown(visit, policy)),)
        except InvalidValueError as error:
            problems = (form.locate(error),)
        except ConflictError as error:
            problems = (Problem("name", error.message),)
    return await _render(visit, policy, form, problems, preview)


def _not_shown(visit: Visit, policy: PolicyRow | None) -> str:
    began = visit.form.get("revision", "")
    if policy is not None and began.isdigit() and int(began) != policy.revision:
        return (
            f"Somebody else changed this policy meanwhile: it is at revision {policy.revision} now, and you began from "
            f"{began}. Saving puts yours in its place; look at what that would change, then save again."
        )
    return "This is not what was shown: look at what it would change now, then save again."


async def _save(visit: Visit, policy: PolicyRow | None, form: PolicyForm) -> Response:
    if policy is None:
        check_permission(visit.caller, ApiRoute.CREATE_POLICY)
        made = await create_policy(visit.services, visit.call, form.to_input())
        return lead_to(f"{HOME}/{made.id}")
    check_permission(visit.caller, ApiRoute.UPDATE_POLICY)
    updated = await update_policy(visit.services, visit.call, policy.id, form.to_input())
    return lead_to(f"{HOME}/{policy.id}", enforced=render_enforcement(updated.enforcement))


async def _preview(visit: Visit, policy: PolicyRow | None, form: PolicyForm) -> Preview:
    given = form.to_input()
    simulation = None
    if policy is not None:
        hours = find_hours(visit.form.get("hours", ""))
        work = simulate(visit.services, visit.caller, policy.id, given, hours=hours, now_ms=visit.now_ms)
        simulation = await work
    before = _NEW if policy is None else decode_policy(policy.document)
    taken = max((rule.grant for rule in before.allowed_cidrs), default=GRANT_FIRST)
    # Nothing is enforced by these grants: the document is only described.
    after = finish_merge(merge_change(before, parse_policy_input(given)), grant_first=taken + 1)
    described = msgspec.structs.replace(after, number=max(1, after.number), revision=max(1, after.revision))
    advice = advise_policy(policy_from_document(described)[0], is_shared)
    revision = 0 if policy is None else policy.revision
    return Preview(describe_policy(after), advice, simulation, form.digest(revision))


def find_hours(text: str) -> int:
    """Out of HOURS the one that was chosen."""
    return next((hours for hours in HOURS if str(hours) == text), _HOURS_DEFAULT)


async def _render(
    visit: Visit, policy: PolicyRow | None, form: PolicyForm, problems: Sequence[Problem], preview: Preview | None
) -> Response:
    values = {
        "policy": policy,
        "form": form,
        "problems": problems,
        "preview": preview,
        "hours": find_hours(visit.form.get("hours", "")),
        "hours_choices": HOURS,
        "may_save": visit.may(ApiRoute.CREATE_POLICY if policy is None else ApiRoute.UPDATE_POLICY),
    }
    if visit.wants_fragment:
        return visit.fragment("policy_feedback.html", **values)
    return await visit.page("policy_edit.html", status=400 if problems else 200, **values)
