"""Why something may or may not leave under a policy. Asks :mod:`outgate.core.decide`, as the hosts do."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from sqlalchemy import Connection

from outgate.control.builtin_policies import BUILTIN_POLICIES
from outgate.control.callers import Caller
from outgate.control.devbox_reading import get_devbox
from outgate.control.devboxes import devbox_not_found
from outgate.control.ids import IdPrefix, is_id
from outgate.control.judgement import Check, Target, decisive, judge
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import get_policy, read_live_policy
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.core.decide import DNS_OVER_TLS_PORT, prepare_policy
from outgate.core.documents import policy_from_document
from outgate.errors import InvalidValueError
from outgate.model.addresses import PORT_MAX, PORT_MIN, IPAddress, Protocol
from outgate.model.desired import PolicyDocument
from outgate.model.names import DomainName, parse_domain_name
from outgate.model.verdict import Verdict
from outgate.store.devboxes import find_devbox

_PORT_DEFAULT: Final = 443
_WITH_PORTS: Final = frozenset({Protocol.TCP, Protocol.UDP})


@dataclass(frozen=True, slots=True)
class Question:
    """May this leave? ``hostname``, ``address`` or both; TCP to port 443 unless said otherwise."""

    hostname: str | None = None
    address: str | None = None
    port: int | None = None
    protocol: Protocol = Protocol.TCP
    devbox_id: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What decided, which revision of the policy it was, and every check on the way."""

    decided: Check
    policy_id: str
    revision: int
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The answer."""
        return self.decided.verdict


async def explain(services: Services, caller: Caller, policy_id: str, question: Question) -> Explanation:
    """What the policy says to ``question``. Raises InvalidValueError, NotFoundError."""
    target = _parse_target(question)

    def read(tx: Connection) -> PolicyDocument:
        policy = read_live_policy(tx, caller, policy_id)
        if question.devbox_id is not None:
            _check_devbox(tx, caller, question.devbox_id, policy.id)
        return decode_policy(policy.document)

    return _explain(services, caller, await read_as(services, caller, read), target)


async def explain_for_devbox(services: Services, caller: Caller, devbox_id: str, question: Question) -> Explanation:
    """What the policy of the caller's devbox says to ``question``. Raises InvalidValueError, NotFoundError."""
    target = _parse_target(question)
    policy_id = (await get_devbox(services, caller, devbox_id)).policy_id
    document = BUILTIN_POLICIES.get(policy_id)
    if document is None:
        policy = await get_policy(services, caller, policy_id)
        document = decode_policy(policy.document)
    return _explain(services, caller, document, target)


def _explain(services: Services, caller: Caller, document: PolicyDocument, target: Target) -> Explanation:
    policy, _ = policy_from_document(document)
    context = services.settings.context
    checks = judge(prepare_policy(policy, context), target, caller.account_id, context)
    return Explanation(decisive(checks), policy.id, policy.revision, checks)


def _check_devbox(tx: Connection, caller: Caller, devbox_id: str, policy_id: str) -> None:
    devbox = find_devbox(tx, caller.account_id, devbox_id) if is_id(IdPrefix.DEVBOX, devbox_id) else None
    if devbox is None:
        raise devbox_not_found(devbox_id)
    if devbox.policy_id != policy_id:
        message = f"Devbox {devbox_id} is under policy {devbox.policy_id}, not under this one."
        raise InvalidValueError(message, field="devbox_id", code="other_policy")


def _parse_target(question: Question) -> Target:
    if question.hostname is None and question.address is None:
        raise InvalidValueError("Say where to: give hostname, address, or both.", field="hostname", code="missing")
    port = _parse_port(question)
    target = Target(_parse_name(question.hostname), _parse_address(question.address), port, question.protocol)
    is_by_name = target.protocol is Protocol.TCP and port != DNS_OVER_TLS_PORT
    if target.address is None and not is_by_name:
        message = "Host names are reached over TCP on ports other than 853; for anything else give the address, too."
        raise InvalidValueError(message, field="address", code="missing")
    return target


def _parse_port(question: Question) -> int | None:
    if question.protocol not in _WITH_PORTS:
        return None
    port = _PORT_DEFAULT if question.port is None else question.port
    if not PORT_MIN <= port <= PORT_MAX:
        raise InvalidValueError(f"port is {port}; ports are {PORT_MIN} to {PORT_MAX}.", field="port")
    return port


def _parse_name(text: str | None) -> DomainName | None:
    if text is None:
        return None
    try:
        return parse_domain_name(text)
    except InvalidValueError as error:
        raise error.at("hostname") from None


def _parse_address(text: str | None) -> IPAddress | None:
    if text is None:
        return None
    try:
        return ip_address(text)
    except ValueError:
        message = f"{text[:80]!r} is no IP address; names go into hostname."
        raise InvalidValueError(message, field="address") from None
