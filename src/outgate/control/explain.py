"""Why something may or may not leave under a policy. Asks :mod:`outgate.core.decide`, as the hosts do."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from sqlalchemy import Connection

from outgate.control.callers import Caller
from outgate.control.devboxes import devbox_not_found
from outgate.control.ids import IdPrefix, is_id
from outgate.control.policy_documents import decode_policy
from outgate.control.policy_reading import read_live_policy
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.core.decide import (
    PreparedPolicy,
    decide_answer,
    decide_flow,
    decide_lookup,
    decide_tunnel,
    prepare_policy,
)
from outgate.core.documents import policy_from_document
from outgate.errors import InvalidValueError
from outgate.model.addresses import PORT_MAX, PORT_MIN, IPAddress, Protocol
from outgate.model.desired import PolicyDocument
from outgate.model.flow import Flow, Handshake, HostContext, HttpRequest, TlsHello, Unseen
from outgate.model.names import DomainName, parse_domain_name
from outgate.model.tunnels import is_below_tunnel_domain
from outgate.model.verdict import Allow, AllowReason, Verdict
from outgate.store.devboxes import find_devbox

_HTTP_PORT: Final = 80
_PORT_DEFAULT: Final = 443
_DNS_OVER_TLS_PORT: Final = 853
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
    """The verdict, and which revision of the policy gave it."""

    verdict: Verdict
    policy_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class _Target:
    name: DomainName | None
    address: IPAddress | None
    port: int | None
    protocol: Protocol


async def explain(services: Services, caller: Caller, policy_id: str, question: Question) -> Explanation:
    """What the policy says to ``question``. Raises InvalidValueError, NotFoundError."""
    target = _parse_target(question)

    def read(tx: Connection) -> PolicyDocument:
        policy = read_live_policy(tx, caller, policy_id)
        if question.devbox_id is not None:
            _check_devbox(tx, caller, question.devbox_id, policy.id)
        return decode_policy(policy.document)

    document = await read_as(services, caller, read)
    policy, _ = policy_from_document(document)
    context = services.settings.context
    prepared = prepare_policy(policy, context)
    if target.name is not None and is_below_tunnel_domain(target.name, context.tunnel_domain):
        # Never looked up elsewhere, so an address that is given along means nothing.
        verdict = decide_tunnel(prepared, caller.account_id, target.name, context)
    else:
        verdict = _judge(prepared, target, context)
    return Explanation(verdict, policy.id, policy.revision)


def _check_devbox(tx: Connection, caller: Caller, devbox_id: str, policy_id: str) -> None:
    devbox = find_devbox(tx, caller.account_id, devbox_id) if is_id(IdPrefix.DEVBOX, devbox_id) else None
    if devbox is None:
        raise devbox_not_found(devbox_id)
    if devbox.policy_id != policy_id:
        message = f"Devbox {devbox_id} is under policy {devbox.policy_id}, not under this one."
        raise InvalidValueError(message, field="devbox_id", code="other_policy")


def _parse_target(question: Question) -> _Target:
    if question.hostname is None and question.address is None:
        raise InvalidValueError("Say where to: give hostname, address, or both.", field="hostname", code="missing")
    port = _parse_port(question)
    target = _Target(_parse_name(question.hostname), _parse_address(question.address), port, question.protocol)
    is_by_name = target.protocol is Protocol.TCP and port != _DNS_OVER_TLS_PORT
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


def _judge(policy: PreparedPolicy, target: _Target, context: HostContext) -> Verdict:
    """The first verdict that denies, in the order in which a devbox would meet them; else the last one."""
    verdict: Verdict | None = None
    for verdict in _verdicts(policy, target, context):
        if not isinstance(verdict, Allow):
            return verdict
    assert verdict is not None  # noqa: S101 - a target has a name or an address
    return verdict


def _verdicts(policy: PreparedPolicy, target: _Target, context: HostContext) -> Iterator[Verdict]:
    name, address = target.name, target.address
    if name is not None:
        yield decide_lookup(policy, name, context)
    if address is None:
        return
    flow = Flow(target.protocol, address, target.port, _handshake(target))
    by_flow = decide_flow(policy, flow, () if name is None else (name,), context)
    yield by_flow
    is_by_name = isinstance(by_flow, Allow) and by_flow.reason is AllowReason.HOSTNAME
    if name is not None and is_by_name:
        # The relay connects the flow anew, to an address of the named host.
        yield decide_answer(policy, name, address, context, port=target.port)


def _handshake(target: _Target) -> Handshake:
    """What a client that behaves would say first."""
    if target.name is None or target.protocol is not Protocol.TCP:
        return Unseen()
    return HttpRequest(target.name) if target.port == _HTTP_PORT else TlsHello(target.name)
