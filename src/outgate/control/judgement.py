"""What a policy says to something that might leave, check by check, in the order in which a devbox would meet them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from outgate.core.decide import (
    DNS_OVER_TLS_PORT,
    PreparedPolicy,
    decide_answer,
    decide_flow,
    decide_lookup,
    decide_tunnel,
)
from outgate.model.addresses import IPAddress, Protocol
from outgate.model.flow import Flow, Handshake, HostContext, HttpRequest, TlsHello, Unseen
from outgate.model.names import DomainName
from outgate.model.tunnels import is_below_tunnel_domain
from outgate.model.verdict import Allow, AllowReason, Deny, EnforcementPoint, ReportOnly, Verdict

_HTTP_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Target:
    """Where something would go: a name, an address or both; ``port`` is None for protocols without.

    ``protocol`` is the number of IANA's registry, as in :class:`outgate.model.addresses.Protocol`.
    """

    name: DomainName | None
    address: IPAddress | None
    port: int | None
    protocol: int


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict on the way, and where it would be carried out."""

    point: EnforcementPoint
    verdict: Verdict


def judge(policy: PreparedPolicy, target: Target, account_id: str, context: HostContext) -> tuple[Check, ...]:
    """The checks up to the first that denies, or all of them: never empty. :func:`decisive` is the answer."""
    checks: list[Check] = []
    for check in _checks(policy, target, account_id, context):
        checks.append(check)
        if isinstance(check.verdict, Deny):
            break
    return tuple(checks)


def decisive(checks: Sequence[Check]) -> Check:
    """The check whose verdict is the answer: a denial, else what is only reported first, else the last."""
    reported = (check for check in checks if isinstance(check.verdict, ReportOnly))
    return checks[-1] if isinstance(checks[-1].verdict, Deny) else next(reported, checks[-1])


def _checks(policy: PreparedPolicy, target: Target, account_id: str, context: HostContext) -> Iterator[Check]:
    name, address = target.name, target.address
    if name is not None and is_below_tunnel_domain(name, context.tunnel_domain):
        # Never looked up elsewhere, so an address that is given along means nothing.
        yield Check(EnforcementPoint.RELAY, decide_tunnel(policy, account_id, name, context))
        return
    if name is not None:
        yield Check(EnforcementPoint.DNS, decide_lookup(policy, name, context))
    if address is None:
        return
    flow = Flow(target.protocol, address, target.port, _handshake(target))
    by_flow = decide_flow(policy, flow, () if name is None else (name,), context)
    is_by_name = isinstance(by_flow, Allow) and by_flow.reason is AllowReason.HOSTNAME
    is_read = isinstance(by_flow, ReportOnly) and _is_relayed(target)
    yield Check(EnforcementPoint.RELAY if is_by_name or is_read else EnforcementPoint.KERNEL, by_flow)
    if name is not None and is_by_name:
        # The relay connects the flow anew, to an address of the named host.
        yield Check(EnforcementPoint.RELAY, decide_answer(policy, name, address, context, port=target.port))


def _is_relayed(target: Target) -> bool:
    """Whether the relay reads what a policy that only reports lets pass by a name."""
    is_tcp = target.protocol == Protocol.TCP and target.port != DNS_OVER_TLS_PORT
    return is_tcp and target.name is not None


def _handshake(target: Target) -> Handshake:
    """What a client that behaves would say first."""
    if target.name is None or target.protocol != Protocol.TCP:
        return Unseen()
    return HttpRequest(target.name) if target.port == _HTTP_PORT else TlsHello(target.name)
