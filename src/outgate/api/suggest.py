"""``POST /v1/network-policies/{id}/suggest``: an extension."""

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from outgate.api.bodies import BODY_CONFIG, Whole
from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.policy_views import CidrView, NetworkPolicyAdvice, view_advice, view_cidr
from outgate.api.responses import respond
from outgate.api.simulate import HOURS_DEFAULT, HOURS_MAX
from outgate.control.ids import IdPrefix, id_pattern
from outgate.control.suggestions import (
    DEVBOXES_MAX,
    SuggestionRequest,
    Suggestions,
    render_rules,
    suggest_policy,
)
from outgate.core.suggest import Evidence, LeftOut, Suggestion
from outgate.errors import InvalidValueError
from outgate.model.policy import CidrRule

router: Final = APIRouter(prefix="/v1/network-policies", tags=["network policies"])

_TIME_MAX: Final = 2**53
_PATTERNS: Final[list[JsonValue]] = [{"pattern": id_pattern(one)} for one in (IdPrefix.DEVBOX, IdPrefix.BLUEPRINT)]
# For the OpenAPI document only: control judges, with better words.
_DevboxId = Annotated[str, Field(json_schema_extra={"anyOf": _PATTERNS})]


class NetworkPolicySuggestParams(BaseModel):
    """Which records count: of the last ``hours`` (24), or since ``since_ms`` (Unix) if given; of all devboxes or some.

    ``include_denied`` (true): whether what was denied is to be allowed, too. What was reported always is.
    """

    model_config = ConfigDict(**BODY_CONFIG)

    hours: Annotated[Whole, Field(json_schema_extra={"minimum": 1, "maximum": HOURS_MAX})] | None = None
    since_ms: Annotated[Whole, Field(json_schema_extra={"minimum": 0, "maximum": _TIME_MAX})] | None = None
    devbox_ids: Annotated[list[_DevboxId], Field(json_schema_extra={"maxItems": DEVBOXES_MAX})] | None = None
    include_denied: bool | None = None

    def to_request(self) -> SuggestionRequest:
        """The value control works with. Raises InvalidValueError."""
        hours = HOURS_DEFAULT if self.hours is None else self.hours
        if not 1 <= hours <= HOURS_MAX:
            raise InvalidValueError(f"hours is {hours}; it may be 1 to {HOURS_MAX}.", field="hours")
        if self.since_ms is not None and not 0 <= self.since_ms <= _TIME_MAX:
            raise InvalidValueError(f"since_ms is {self.since_ms}; it is Unix milliseconds.", field="since_ms")
        return SuggestionRequest(
            hours, self.since_ms, tuple(self.devbox_ids or ()), include_denied=self.include_denied is not False
        )


class NetworkPolicyEvidence(msgspec.Struct, frozen=True):
    """What something rests on: so many decisions, by their verdict, of these devboxes, between these times.

    ``names`` and ``examples`` are the most frequent ones of ``name_count`` and more.
    """

    count: int
    allowed_count: int
    denied_count: int
    reported_count: int
    devbox_ids: tuple[str, ...]
    first_ms: int
    last_ms: int
    name_count: int
    names: tuple[str, ...]
    examples: tuple[str, ...]


class NetworkPolicySuggestedHostname(msgspec.Struct, frozen=True):
    """An entry of ``allowed_hostnames``. ``is_covered``: the policy allows all of it already."""

    hostname: str
    is_covered: bool
    evidence: NetworkPolicyEvidence
    warnings: tuple[NetworkPolicyAdvice, ...]


class NetworkPolicySuggestedCidr(msgspec.Struct, frozen=True):
    """An entry of ``allowed_cidrs``, for what was asked for without a name."""

    cidr: CidrView
    is_covered: bool
    evidence: NetworkPolicyEvidence


class NetworkPolicyLeftOut(msgspec.Struct, frozen=True):
    """Something that was seen and that no entry covers. ``reason`` says why."""

    what: str
    reason: str
    evidence: NetworkPolicyEvidence


class NetworkPolicyUnused(msgspec.Struct, frozen=True):
    """An entry of the policy that nothing used in the time looked at."""

    field: str
    index: int
    entry: str


class NetworkPolicyProposal(msgspec.Struct, frozen=True):
    """The policy's own entries, and what they lack: as an update takes it."""

    allowed_hostnames: tuple[str, ...]
    allowed_cidrs: tuple[CidrView, ...]


class NetworkPolicySuggestionView(msgspec.Struct, frozen=True):
    """The smallest readable list that covers what was seen since ``since_ms``, most frequent first.

    ``judged_count`` decisions were looked at; ``partial`` is true when there were more kinds of them than are read.
    """

    policy_id: str
    revision: int
    since_ms: int
    judged_count: int
    partial: bool
    allowed_hostnames: tuple[NetworkPolicySuggestedHostname, ...]
    allowed_cidrs: tuple[NetworkPolicySuggestedCidr, ...]
    left_out: tuple[NetworkPolicyLeftOut, ...]
    unused: tuple[NetworkPolicyUnused, ...]
    warnings: tuple[NetworkPolicyAdvice, ...]
    proposed: NetworkPolicyProposal


@router.post(
    "/{id}/suggest",
    operation_id="suggestNetworkPolicy",
    summary="What a policy should allow",
    openapi_extra=describe(
        NetworkPolicySuggestionView, body=NetworkPolicySuggestParams, is_body_optional=True, errors=[404]
    ),
)
async def suggest(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """By the recorded decisions of the policy's devboxes. Changes nothing."""
    given, call = await context.read(NetworkPolicySuggestParams)
    request = given.to_request()
    return respond(_view(await suggest_policy(context.services, context.caller, id, request, now_ms=call.now_ms)))


def _view(made: Suggestions) -> NetworkPolicySuggestionView:
    found = made.found
    return NetworkPolicySuggestionView(
        policy_id=made.policy_id,
        revision=made.revision,
        since_ms=made.since_ms,
        judged_count=made.judged,
        partial=made.is_partial,
        allowed_hostnames=tuple(_view_hostname(one) for one in found.hostnames),
        allowed_cidrs=tuple(_view_suggested_cidr(one, one.entry) for one in found.cidrs),
        left_out=tuple(_view_left_out(one) for one in found.left_out),
        unused=tuple(NetworkPolicyUnused(ref.field, ref.index or 0, ref.text) for ref in found.unused),
        warnings=tuple(view_advice(advice) for advice in made.advice),
        proposed=NetworkPolicyProposal(made.proposed_hostnames, tuple(view_cidr(rule) for rule in made.proposed_cidrs)),
    )


def _view_hostname(one: Suggestion) -> NetworkPolicySuggestedHostname:
    warnings = tuple(view_advice(advice) for advice in one.advice)
    return NetworkPolicySuggestedHostname(str(one.entry), one.is_covered, _view_evidence(one.evidence), warnings)


def _view_suggested_cidr(one: Suggestion, rule: object) -> NetworkPolicySuggestedCidr:
    if not isinstance(rule, CidrRule):
        raise TypeError(f"{rule} is no network")
    return NetworkPolicySuggestedCidr(view_cidr(render_rules((rule,))[0]), one.is_covered, _view_evidence(one.evidence))


def _view_left_out(one: LeftOut) -> NetworkPolicyLeftOut:
    return NetworkPolicyLeftOut(one.what, one.reason, _view_evidence(one.evidence))


def _view_evidence(evidence: Evidence) -> NetworkPolicyEvidence:
    counts = evidence.counts
    return NetworkPolicyEvidence(
        count=evidence.count,
        allowed_count=counts.get("allow", 0),
        denied_count=counts.get("deny", 0),
        reported_count=counts.get("report_only", 0),
        devbox_ids=evidence.devbox_ids,
        first_ms=evidence.first_ms,
        last_ms=evidence.last_ms,
        name_count=evidence.name_count,
        names=evidence.names,
        examples=evidence.examples,
    )
