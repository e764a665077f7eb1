"""What a policy's flags open, of what the operator lists behind them. Flags that are off open nothing."""

from collections.abc import Iterator
from typing import NamedTuple

from outgate.model.flow import HostContext
from outgate.model.names import HostPattern
from outgate.model.policy import CidrRule, EgressRules


class OpenedEndpoints(NamedTuple):
    """One flag that is on. ``position`` tells the flags apart in grants, and never changes."""

    field: str
    position: int
    hosts: tuple[HostPattern, ...]
    cidrs: tuple[CidrRule, ...]


def opened_endpoints(egress: EgressRules, context: HostContext) -> Iterator[OpenedEndpoints]:
    """What each flag that is on opens, in one fixed order."""
    if egress.allow_agent_gateway:
        yield OpenedEndpoints("allow_agent_gateway", 0, context.agent_gateway_hosts, context.agent_gateway_cidrs)
    if egress.allow_mcp_gateway:
        yield OpenedEndpoints("allow_mcp_gateway", 1, context.mcp_gateway_hosts, context.mcp_gateway_cidrs)
    if egress.allow_runloop_mirrors:
        yield OpenedEndpoints("allow_runloop_mirrors", 2, context.mirror_hosts, context.mirror_cidrs)
