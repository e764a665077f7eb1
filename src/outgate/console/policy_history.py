"""The versions of a policy: which there are, what one changed, what going back to it would change."""

from typing import Final

from starlette.responses import Response

from outgate.api.policy_views import render_enforcement
from outgate.console.permissions import ApiRoute
from outgate.console.places import HOME
from outgate.console.policies import describe
from outgate.console.policy_editor import HOURS, find_hours
from outgate.console.policy_form import PolicyForm, render_rule
from outgate.console.visits import Visit, lead_to
from outgate.control.errors import NotFoundError
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import get_policy, page_revisions
from outgate.control.policy_revisions import RevisionDiff, diff_revisions, get_revision, restore_revision
from outgate.control.simulation import simulate
from outgate.core.policy_words import describe_policy

_PAGE: Final = 20


async def show_history(visit: Visit) -> Response:
    """All versions, newest first."""
    policy = await get_policy(visit.services, visit.caller, visit.path("id"))
    before = visit.number("before")
    page = await page_revisions(visit.services, visit.caller, policy.id, before=before, limit=_PAGE)
    return await visit.page(
        "policy_history.html",
        policy=policy,
        revisions=[(row, describe_policy(decode_policy(row.document))) for row in page.revisions],
        next=page.revisions[-1].revision if page.has_more else None,
    )


async def show_revision(visit: Visit) -> Response:
    """One version: what it says, what it changed, and what going back to it would change."""
    policy = await get_policy(visit.services, visit.caller, visit.path("id"))
    number = _number(visit)
    against = visit.number("against") or max(1, number - 1)
    row = await get_revision(visit.services, visit.caller, policy.id, number)
    diff = await diff_revisions(visit.services, visit.caller, policy.id, number, against=against)
    document = decode_policy(row.document)
    simulation, hours = None, find_hours(visit.query("hours"))
    if number != policy.revision:
        # As restoring does it: the rules come back, the name stays.
        given = PolicyForm.of_document(decode_policy(row.document), row.description).to_rules()
        simulation = await simulate(visit.services, visit.caller, policy.id, given, hours=hours, now_ms=visit.now_ms)
    return await visit.page(
        "policy_revision.html",
        row=row,
        against=against,
        diff=diff_lines(diff),
        simulation=simulation,
        hours=hours,
        hours_choices=HOURS,
        may_restore=visit.may(ApiRoute.RESTORE_POLICY),
        **describe(policy, document),
    )


def diff_lines(diff: RevisionDiff) -> list[tuple[str, str, str]]:
    """Each difference as sign, field and entry; what goes first."""
    lines = [("+" if value else "-", flag, "on" if value else "off") for flag, value in diff.flags.items()]
    if diff.enforcement is not None:
        lines.append(("+", "enforcement", diff.enforcement))
    lines += [("-", "allowed_hostnames", entry) for entry in diff.hostnames_removed]
    lines += [("-", "allowed_cidrs", render_rule(rule)) for rule in diff.cidrs_removed]
    lines += [("+", "allowed_hostnames", entry) for entry in diff.hostnames_added]
    lines += [("+", "allowed_cidrs", render_rule(rule)) for rule in diff.cidrs_added]
    return lines


async def restore(visit: Visit) -> Response:
    """Make this version's rules the policy's own again."""
    restored = await restore_revision(visit.services, visit.call, visit.path("id"), _number(visit))
    return lead_to(f"{HOME}/{restored.policy.id}", enforced=render_enforcement(restored.enforcement))


def _number(visit: Visit) -> int:
    text = visit.path("revision")
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 15):
        raise NotFoundError("There is no such revision: revisions are numbers from 1.", code="revision_not_found")
    return int(text)
