"""What the ruleset's chain ``judge_again`` decides, told in Python: may a flow whose grant died live on? Pure."""

from outgate.core.ranges import classify, embedded_addresses
from outgate.dataplane.conntrack import TrackedFlow
from outgate.model.addresses import IPAddress, Protocol
from outgate.model.plan import GRANT_ALL_BIT, PolicyPlan


def is_allowed_again(flow: TrackedFlow, plan: PolicyPlan, host_addresses: frozenset[IPAddress]) -> bool:
    """Whether the ruleset lets a TCP flow whose grant died live on under another one (as its chains decide it)."""
    reached = (flow.destination, *embedded_addresses(flow.destination))
    if flow.mark & GRANT_ALL_BIT or not host_addresses.isdisjoint(reached):
        return False
    if plan.grant_all in plan.live or (plan.is_report_only and classify(flow.destination) is None):
        return True
    value = int(flow.destination)
    return flow.destination.version == 4 and any(
        cell.protocol is Protocol.TCP
        and cell.first <= value <= cell.last
        and cell.port_first <= flow.destination_port <= cell.port_last
        for cell in plan.port_cells
    )
