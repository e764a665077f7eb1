"""``POST /v1/network-policies/{id}/explain``, and the same for devboxes: extensions."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from outgate.api.bodies import BODY_CONFIG, Whole
from outgate.api.context import Context
from outgate.api.openapi import describe
from outgate.api.patterns import EXACT_HOSTNAME_PATTERN
from outgate.api.responses import respond
from outgate.control.explain import Explanation, Question, explain, explain_for_devbox
from outgate.control.judgement import Check
from outgate.model.addresses import PORT_MAX, PORT_MIN, Protocol
from outgate.model.verdict import Allow, Deny, ReportOnly, RuleRef

router: Final = APIRouter(tags=["network policies"])


class ExplainProtocol(StrEnum):
    """Protocols that can be asked for, in either spelling."""

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    ICMPV6 = "icmpv6"
    TCP_UPPER = "TCP"
    UDP_UPPER = "UDP"
    ICMP_UPPER = "ICMP"
    ICMPV6_UPPER = "ICMPV6"


# The constraints below are for the OpenAPI document only: control judges, with better words.
Hostname = Annotated[str, Field(json_schema_extra={"pattern": EXACT_HOSTNAME_PATTERN})]
Address = Annotated[str, Field(json_schema_extra={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})]
_SOMEWHERE: Final[list[JsonValue]] = [
    {"required": [field], "properties": {field: {"type": "string"}}} for field in ("hostname", "address")
]


class NetworkPolicyExplainParams(BaseModel):
    """May this leave? ``hostname``, ``address`` or both; TCP to port 443 unless said otherwise."""

    model_config = ConfigDict(**BODY_CONFIG, json_schema_extra={"anyOf": _SOMEWHERE})

    hostname: Hostname | None = None
    address: Address | None = None
    port: Annotated[Whole, Field(json_schema_extra={"minimum": PORT_MIN, "maximum": PORT_MAX})] | None = None
    protocol: ExplainProtocol | None = None
    devbox_id: str | None = None

    def to_question(self) -> Question:
        """The value control judges."""
        protocol = Protocol.TCP if self.protocol is None else Protocol[self.protocol.upper()]
        return Question(self.hostname, self.address, self.port, protocol, self.devbox_id)


class VerdictName(StrEnum):
    """What happens."""

    ALLOW = "allow"
    DENY = "deny"
    REPORT_ONLY = "report_only"


class NetworkPolicyExplainCheck(msgspec.Struct, frozen=True):
    """One check on the way to the verdict, and where it is made: ``dns``, ``relay`` or ``kernel``."""

    enforcement_point: str
    verdict: VerdictName
    reason: str
    rule: str | None
    sentence: str


class NetworkPolicyExplainView(msgspec.Struct, frozen=True):
    """The verdict, the rule that gave it or came nearest, the reason, and a sentence for people.

    ``checks`` are all that were made, in order: up to a denial. Where the policy only reports, the first that would
    have denied gives the verdict.
    """

    verdict: VerdictName
    reason: str
    rule: str | None
    sentence: str
    policy_id: str
    revision: int
    checks: tuple[NetworkPolicyExplainCheck, ...]


@router.post(
    "/v1/network-policies/{id}/explain",
    operation_id="explainNetworkPolicy",
    summary="Why something may or may not leave",
    openapi_extra=describe(NetworkPolicyExplainView, body=NetworkPolicyExplainParams, errors=[404]),
)
async def explain_policy(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """Changes nothing and sends nothing: names are not resolved."""
    given, _ = await context.read(NetworkPolicyExplainParams)
    return respond(_view(await explain(context.services, context.caller, id, given.to_question())))


@router.post(
    "/v1/devboxes/{id}/explain",
    operation_id="explainDevbox",
    summary="Why something may or may not leave a devbox",
    openapi_extra=describe(NetworkPolicyExplainView, body=NetworkPolicyExplainParams, errors=[404]),
)
async def explain_devbox(context: Context, id: str) -> Response:  # noqa: A002 - the wire's name
    """As for its policy."""
    given, _ = await context.read(NetworkPolicyExplainParams)
    return respond(_view(await explain_for_devbox(context.services, context.caller, id, given.to_question())))


def _view(explanation: Explanation) -> NetworkPolicyExplainView:
    checks = tuple(view_check(check) for check in explanation.checks)
    answer = view_check(explanation.decided)
    return NetworkPolicyExplainView(
        answer.verdict, answer.reason, answer.rule, answer.sentence, explanation.policy_id, explanation.revision, checks
    )


def view_check(check: Check) -> NetworkPolicyExplainCheck:
    """The view of one check."""
    match check.verdict:
        case Allow(reason=reason, rule=rule, sentence=sentence):
            return _make(check, VerdictName.ALLOW, reason, rule, sentence)
        case Deny(reason=reason, rule=rule, sentence=sentence):
            return _make(check, VerdictName.DENY, reason, rule, sentence)
        case ReportOnly(would_be=would_be, rule=rule, sentence=sentence):
            return _make(check, VerdictName.REPORT_ONLY, would_be.reason, rule, sentence)


def _make(
    check: Check, name: VerdictName, reason: str, rule: RuleRef | None, sentence: str
) -> NetworkPolicyExplainCheck:
    rendered = None if rule is None else str(rule)
    return NetworkPolicyExplainCheck(check.point.value, name, reason, rendered, sentence)
